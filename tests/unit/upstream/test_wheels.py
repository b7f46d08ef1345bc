"""Wheels from a real index into a real store: each once, whole or not at all."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from resolver.domain.errors import ContentMismatch, IndexUnavailable, InvalidWheel
from resolver.service.leases import Alone
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import Pace
from resolver.upstream.wheels import WheelDownloads
from storage.blobs.filesystem import FilesystemBlobStore
from storage.blobs.memory import MemoryBlobStore
from storage.content import Digest
from storage.errors import StorageFull
from tests.support.index import Fault, PackageIndex
from tests.support.wheels import make_wheel
from tests.unit.upstream.conftest import QUICK, kept_files, reference

FILENAME, CONTENT = make_wheel("demo", "1.0", files={"demo/__init__.py": "x = 1\n", "demo/data.bin": b"\x07" * 4000})


class Observer:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def fetched(self, result: str, bytes: int) -> None:  # noqa: A002 - the protocol's name
        self.seen.append((result, bytes))


async def content_of(store: FilesystemBlobStore, digest: Digest) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest)])


async def test_a_wheel_is_fetched_once_and_kept_as_published(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages, store: FilesystemBlobStore
) -> None:
    index.add(FILENAME, CONTENT)
    wheel = reference(index, FILENAME, CONTENT)
    observer = Observer()
    downloads = WheelDownloads(client, pages, store, Alone(), observer=observer)
    await downloads.fetch(wheel)
    await downloads.fetch(wheel)
    assert await content_of(store, wheel.digest) == CONTENT
    assert index.requests == [f"/files/{FILENAME}"]
    assert observer.seen == [("fetched", len(CONTENT)), ("present", 0)]


async def test_fifty_callers_make_one_request(index: PackageIndex, downloads: WheelDownloads) -> None:
    index.add(FILENAME, CONTENT)
    await asyncio.gather(*(downloads.fetch(reference(index, FILENAME, CONTENT)) for _ in range(50)))
    assert index.count(FILENAME) == 1


async def test_a_caller_that_goes_away_harms_nobody(
    index: PackageIndex, downloads: WheelDownloads, store: FilesystemBlobStore
) -> None:
    index.add(FILENAME, CONTENT)
    wheel = reference(index, FILENAME, CONTENT)
    leader = asyncio.create_task(downloads.fetch(wheel))
    followers = [asyncio.create_task(downloads.fetch(wheel)) for _ in range(5)]
    while not index.requests:
        await asyncio.sleep(0.001)
    leader.cancel()
    await asyncio.gather(*followers)
    assert leader.cancelled()
    assert await content_of(store, wheel.digest) == CONTENT
    assert index.count(FILENAME) == 1


async def test_a_download_outlives_its_only_caller(index: PackageIndex, downloads: WheelDownloads) -> None:
    index.add(FILENAME, CONTENT)
    wheel = reference(index, FILENAME, CONTENT)
    caller = asyncio.create_task(downloads.fetch(wheel))
    while not index.requests:
        await asyncio.sleep(0.001)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await downloads.fetch(wheel)
    assert index.count(FILENAME) == 1


@pytest.mark.parametrize(
    ("kind", "error", "words", "asked"),
    [
        ("500", IndexUnavailable, "answered 500", 3),
        ("half", IndexUnavailable, "RemoteProtocolError", 3),
        ("hang", IndexUnavailable, "ReadTimeout", 3),
        ("refuse", IndexUnavailable, "RemoteProtocolError", 3),
        ("slow", IndexUnavailable, "bytes within", 3),
        ("404", IndexUnavailable, "answered 404", 1),
        ("garbage", ContentMismatch, "expected sha256:", 1),
        ("wrong-bytes", ContentMismatch, "expected sha256:", 1),
    ],
)
async def test_every_fault_is_told_and_leaves_nothing_behind(
    index: PackageIndex,
    client: httpx.AsyncClient,
    pages: SimplePages,
    store: FilesystemBlobStore,
    tmp_path: Path,
    kind: Fault,
    error: type[Exception],
    words: str,
    asked: int,
) -> None:
    if kind == "hang":
        client.timeout = httpx.Timeout(0.2)
    index.add(FILENAME, CONTENT)
    index.fault(FILENAME, kind)
    wheel = reference(index, FILENAME, CONTENT)
    observer = Observer()
    downloads = WheelDownloads(
        client, pages, store, Alone(), retries=QUICK, pace=Pace(grace=0.2, rate=1e6), observer=observer
    )
    with pytest.raises(error, match=words):
        await downloads.fetch(wheel)
    assert index.count(FILENAME) == asked
    assert kept_files(tmp_path) == []
    assert [result for result, _ in observer.seen] == ["mismatch" if error is ContentMismatch else "unavailable"]
    client.timeout = httpx.Timeout(30)
    index.clear_faults()
    await downloads.fetch(wheel)
    assert await content_of(store, wheel.digest) == CONTENT


@pytest.mark.parametrize("kind", ["500", "half", "refuse"])
async def test_what_passes_is_tried_again(index: PackageIndex, downloads: WheelDownloads, kind: Fault) -> None:
    index.add(FILENAME, CONTENT)
    index.fault(FILENAME, kind, times=2)
    await downloads.fetch(reference(index, FILENAME, CONTENT))
    assert index.count(FILENAME) == 3


async def test_a_body_without_a_length_that_is_cut_off_is_tried_again(
    index: PackageIndex, downloads: WheelDownloads
) -> None:
    index.add(FILENAME, CONTENT)
    index.answer(FILENAME, 200, CONTENT[:100], {"Connection": "close"}, times=1)
    await downloads.fetch(reference(index, FILENAME, CONTENT))
    assert index.count(FILENAME) == 2


async def test_an_index_that_is_not_there_is_named(downloads: WheelDownloads, tmp_path: Path) -> None:
    with PackageIndex() as index:
        wheel = reference(index, FILENAME, CONTENT)
    with pytest.raises(IndexUnavailable, match=r"index first, demo-1.0-py3-none-any.whl: ConnectError"):
        await downloads.fetch(wheel)
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/demo.whl", "http://127.0.0.1:port/demo.whl"])
async def test_a_url_that_leads_nowhere_is_told(index: PackageIndex, downloads: WheelDownloads, url: str) -> None:
    index.add(FILENAME, CONTENT)
    with pytest.raises(IndexUnavailable, match=r"UnsupportedProtocol|InvalidURL"):
        await downloads.fetch(dataclasses.replace(reference(index, FILENAME, CONTENT), url=url))
    assert index.requests == []


async def test_all_attempts_together_have_an_end(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages, store: FilesystemBlobStore, tmp_path: Path
) -> None:
    index.add(FILENAME, CONTENT)
    index.fault(FILENAME, "slow")
    with pytest.raises(IndexUnavailable, match=r"not done within 0.3 s"):
        await WheelDownloads(client, pages, store, Alone(), seconds=0.3).fetch(reference(index, FILENAME, CONTENT))
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("html_only", [False, True], ids=["json", "html"])
async def test_a_signed_url_is_read_from_the_page_when_the_locks_own_is_refused(
    client: httpx.AsyncClient, store: FilesystemBlobStore, caplog: pytest.LogCaptureFixture, html_only: bool
) -> None:
    with PackageIndex(html_only=html_only) as index:
        pages = SimplePages(client)
        downloads = WheelDownloads(client, pages, store, Alone(), retries=QUICK)
        index.add(FILENAME, CONTENT, query="X-Signature=yesterday")
        wheel = reference(index, FILENAME, CONTENT)
        await pages.project(wheel.name, (wheel.index,))  # a kept page would have the signature of yesterday
        index.add(FILENAME, CONTENT, query="X-Signature=today")
        index.requests.clear()
        await downloads.fetch(wheel)
        assert index.requests == [
            f"/files/{FILENAME}",
            "/simple/demo/",
            f"/files/{FILENAME}?X-Signature=today",
        ]
    assert await content_of(store, wheel.digest) == CONTENT


async def test_a_refused_signature_is_in_no_error_and_in_no_log_of_ours(
    index: PackageIndex, downloads: WheelDownloads, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    index.add(FILENAME, CONTENT, query="X-Signature=planted")
    index.fault("?X-Signature", "500")
    with pytest.raises(IndexUnavailable) as failure:
        await downloads.fetch(reference(index, FILENAME, CONTENT))
    assert index.count("?X-Signature=planted") == QUICK.attempts
    assert "planted" not in str(failure.value) and "planted" not in caplog.text


async def test_a_file_that_was_replaced_is_told(index: PackageIndex, downloads: WheelDownloads, tmp_path: Path) -> None:
    other = make_wheel("demo", "1.0")[1]
    index.add(FILENAME, other, query="sig=1")
    with pytest.raises(ContentMismatch, match=str(Digest.of(other))):
        await downloads.fetch(reference(index, FILENAME, CONTENT))
    index.remove(FILENAME)
    with pytest.raises(IndexUnavailable, match="answered 404"):
        await downloads.fetch(reference(index, FILENAME, CONTENT))
    assert kept_files(tmp_path) == []


async def test_credentials_open_their_index(downloads: WheelDownloads) -> None:
    with PackageIndex(auth=("user", "p@ss")) as index:
        index.add(FILENAME, CONTENT)
        with pytest.raises(IndexUnavailable, match="answered 401"):
            await downloads.fetch(reference(index, FILENAME, CONTENT, auth=False))
        await downloads.fetch(reference(index, FILENAME, CONTENT))


async def test_credentials_are_kept_from_other_hosts(downloads: WheelDownloads, index: PackageIndex) -> None:
    index.add(FILENAME, CONTENT)
    with PackageIndex(auth=("user", "p@ss")) as private:
        wheel = dataclasses.replace(
            reference(private, FILENAME, CONTENT), url=f"http://127.0.0.1:{index.port}/files/{FILENAME}"
        )
        await downloads.fetch(wheel)
    assert index.authorizations == [None]


async def test_a_wheel_over_the_limit_is_refused(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages, store: FilesystemBlobStore, tmp_path: Path
) -> None:
    index.add(FILENAME, CONTENT)
    downloads = WheelDownloads(client, pages, store, Alone(), size_limit=len(CONTENT) - 1)
    with pytest.raises(InvalidWheel, match=f"over {len(CONTENT) - 1} bytes"):
        await downloads.fetch(reference(index, FILENAME, CONTENT))
    assert kept_files(tmp_path) == []
    await WheelDownloads(client, pages, store, Alone(), size_limit=len(CONTENT)).fetch(
        reference(index, FILENAME, CONTENT)
    )


class FullStore(MemoryBlobStore):
    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        await anext(chunks)
        raise StorageFull("no room left")


async def test_a_full_store_is_told_and_not_insisted_on(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages
) -> None:
    index.add(FILENAME, CONTENT)
    observer = Observer()
    with pytest.raises(StorageFull):
        await WheelDownloads(client, pages, FullStore(), Alone(), observer=observer).fetch(
            reference(index, FILENAME, CONTENT)
        )
    assert index.count(FILENAME) == 1
    assert observer.seen == [("failed", 0)]


class CountingStore(MemoryBlobStore):
    """Keeps the first writers waiting until three are there, and counts how many there are at most."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = 0
        self.most = 0
        self.three = asyncio.Event()

    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        self.writing += 1
        self.most = max(self.most, self.writing)
        if self.writing == 3:
            self.three.set()
        try:
            await self.three.wait()
            return await super().write(chunks, expected)
        finally:
            self.writing -= 1


async def test_downloads_are_parallel_within_a_bound(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages
) -> None:
    wheels = [make_wheel("demo", f"1.{number}") for number in range(20)]
    for filename, content in wheels:
        index.add(filename, content)
    store = CountingStore()
    downloads = WheelDownloads(client, pages, store, Alone(), parallel=3)
    async with asyncio.timeout(20):
        await asyncio.gather(*(downloads.fetch(reference(index, *wheel)) for wheel in wheels))
    assert store.most == 3
    assert len([blob async for blob in store.all()]) == 20


async def test_closing_ends_what_is_under_way(
    index: PackageIndex, client: httpx.AsyncClient, pages: SimplePages, store: FilesystemBlobStore, tmp_path: Path
) -> None:
    index.add(FILENAME, CONTENT)
    index.fault(FILENAME, "slow")
    downloads = WheelDownloads(client, pages, store, Alone())
    caller = asyncio.create_task(downloads.fetch(reference(index, FILENAME, CONTENT)))
    while not index.requests:
        await asyncio.sleep(0.001)
    await downloads.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert kept_files(tmp_path) == []
