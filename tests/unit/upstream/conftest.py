"""A real index, a real client, a real store; retries that do not make a test wait."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from packaging.utils import canonicalize_name

from resolver.domain.ports import WheelReference
from resolver.domain.requests import Index
from resolver.service.leases import Alone
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import Retries, index_client
from resolver.upstream.wheels import WheelDownloads
from storage.blobs.filesystem import FilesystemBlobStore
from storage.content import Digest
from tests.support.index import PackageIndex

QUICK = Retries(attempts=3, first_pause=0.001, longest_pause=0.01)


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        yield index


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with index_client("0.1") as client:
        yield client


@pytest.fixture
async def pages(client: httpx.AsyncClient) -> AsyncIterator[SimplePages]:
    pages = SimplePages(client, retries=QUICK)
    yield pages
    await pages.close()


@pytest.fixture
async def store(tmp_path: Path) -> FilesystemBlobStore:
    return await FilesystemBlobStore.open(tmp_path / "store")


@pytest.fixture
async def downloads(
    client: httpx.AsyncClient, pages: SimplePages, store: FilesystemBlobStore
) -> AsyncIterator[WheelDownloads]:
    downloads = WheelDownloads(client, pages, store, Alone(), retries=QUICK)
    yield downloads
    await downloads.close()


def configured(index: PackageIndex, name: str = "first", auth: bool = True) -> Index:
    """The index as an operator configures it."""
    return Index(name, index.url_with_auth if auth else index.url)


def reference(index: PackageIndex, filename: str, content: bytes, *, auth: bool = True) -> WheelReference:
    """The wheel as a lock names it: no credential and no query in its URL."""
    name, version, _ = filename.split("-", 2)
    return WheelReference(
        name=canonicalize_name(name),
        version=version,
        filename=filename,
        url=f"http://127.0.0.1:{index.port}/files/{filename}",
        digest=Digest.of(content),
        size=len(content),
        index=configured(index, auth=auth),
    )


def kept_files(store_root: Path) -> list[Path]:
    """Every file of a store, whole or not."""
    return [path for path in store_root.rglob("*") if path.is_file()]
