from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from storage.blob_protocols import BlobLinks, BlobStore
from storage.blobs.filesystem import FilesystemBlobStore
from storage.blobs.memory import MemoryBlobStore
from storage.blobs.object_store import ObjectBlobStore
from storage.blobs.opening import open_blob_store
from tests.contracts.blob_store import LARGE, BlobStoreContract, SharedBlobStoreContract, digests, put
from tests.support.s3 import S3Server, moto, radosgw


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


class OnS3(SharedBlobStoreContract):
    @pytest.fixture
    def url(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server.url()

    @pytest.fixture
    async def store(self, url: str, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = await open_blob_store(url, tmp_path)
        yield store
        for digest in await digests(store):
            await store.delete(digest)

    @pytest.fixture
    async def another(self, url: str, tmp_path: Path) -> BlobStore:
        return await open_blob_store(url, tmp_path)

    async def test_a_link_leads_to_the_blob(self, store: ObjectBlobStore) -> None:
        assert isinstance(store, BlobLinks)
        digest = await put(store, LARGE)
        link = await store.presigned(digest, 60)
        assert link is not None
        async with httpx.AsyncClient() as client:
            whole = await client.get(link)
            part = await client.get(link, headers={"range": "bytes=1000-1999"})
        assert (whole.status_code, whole.content) == (200, LARGE)
        assert (part.status_code, part.content) == (206, LARGE[1000:2000])


@pytest.fixture(scope="module")
def moto_server() -> Iterator[S3Server]:
    with moto() as server:
        yield server


@pytest.fixture(scope="module")
def radosgw_server() -> Iterator[S3Server]:
    with radosgw() as server:
        yield server


class TestMoto(OnS3):
    @pytest.fixture
    def server(self, moto_server: S3Server) -> S3Server:
        return moto_server


class TestRadosgw(OnS3):
    @pytest.fixture
    def server(self, radosgw_server: S3Server) -> S3Server:
        return radosgw_server

    async def test_a_link_is_good_for_its_blob_and_method_alone(self, store: ObjectBlobStore) -> None:
        one, two = await put(store, b"one"), await put(store, b"two")
        link = await store.presigned(one, 60)
        assert link is not None
        async with httpx.AsyncClient() as client:
            assert (await client.get(link)).content == b"one"
            assert (await client.get(link.replace(one.hex, two.hex))).status_code == 403
            assert (await client.put(link, content=b"two")).status_code == 403
            assert (await client.get(link.partition("?")[0])).status_code == 403
