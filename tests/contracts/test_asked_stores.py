from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.metadata.store import SqlMetadataStore
from storage.protocols import MetadataStore
from tests.contracts.asked_store import AskedStoreContract
from tests.support.postgres import PostgresServer


class OnSql(AskedStoreContract):
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


class TestSqlite(OnSql):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/lockstep.db"


class TestPostgresql(OnSql):
    @pytest.fixture
    def url(self, postgres: PostgresServer, migrated: str) -> Iterator[str]:
        with postgres.database(template=migrated) as name:
            yield postgres.url(name)
