from pathlib import Path

import pytest

from storage.blobs.filesystem import FilesystemBlobStore
from storage.blobs.memory import MemoryBlobStore
from storage.protocols import BlobStore
from tests.contracts.blob_store import BlobStoreContract, SharedBlobStoreContract


class TestMemory(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return MemoryBlobStore()


class TestFilesystem(SharedBlobStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> BlobStore:
        return await FilesystemBlobStore.open(tmp_path / "store")

    @pytest.fixture
    async def another(self, tmp_path: Path) -> BlobStore:
        return await FilesystemBlobStore.open(tmp_path / "store")
