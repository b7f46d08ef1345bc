"""The databases that the suites of the metadata store run on, as classes to mix in: where the store is."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.metadata import postgresql
from storage.metadata.store import SqlMetadataStore
from storage.protocols import MetadataStore
from tests.support.pooler import TransactionPooler
from tests.support.postgres import PostgresServer


class _OnSql:
    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """How long so many wait for a connection says nothing of the store, but of the machine."""
        monkeypatch.setattr(postgresql, "_POOL_TIMEOUT", 60.0)

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[MetadataStore]:
        store = await SqlMetadataStore.open(url)
        yield store
        await store.close()

    @pytest.fixture
    async def another(self, url: str, store: MetadataStore) -> AsyncIterator[MetadataStore]:
        another = await SqlMetadataStore.open(url)
        yield another
        await another.close()


class OnSqlite(_OnSql):
    @pytest.fixture
    def url(self, tmp_path: Path, sqlite_template: Path) -> str:
        return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'lockstep.db')}"


class OnPostgresql(_OnSql):
    @pytest.fixture
    def url(self, postgres: PostgresServer, emptied: str) -> str:
        return postgres.url(emptied)


class OnPooledPostgresql(_OnSql):
    """Behind a transaction pooler."""

    @pytest.fixture
    def url(self, emptied: str, pooler: TransactionPooler) -> str:
        return pooler.url(emptied)
