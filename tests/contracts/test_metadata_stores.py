from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.metadata.store import SqlMetadataStore
from storage.protocols import MetadataStore
from tests.contracts.metadata_store import MetadataStoreContract


class TestSqlite(MetadataStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[MetadataStore]:
        store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
        yield store
        await store.close()

    @pytest.fixture
    async def another(self, tmp_path: Path, store: MetadataStore) -> AsyncIterator[MetadataStore]:
        another = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
        yield another
        await another.close()
