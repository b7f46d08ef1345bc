"""What a folder of blobs promises beyond the contract: crashes, full disks, file handles, many processes."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.blobs.filesystem import FilesystemBlobStore
from storage.content import Digest
from storage.errors import BlobNotFound, DigestMismatch, StorageError, StorageFull, StorageUnavailable
from tests.contracts.blob_store import LARGE, MIB, chunks, content_of, digests, put

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def store(tmp_path: Path) -> FilesystemBlobStore:
    return await FilesystemBlobStore.open(tmp_path)


def staged(root: Path) -> list[Path]:
    return list((root / "blobs-v1" / "staging").iterdir())


def open_files(root: Path) -> list[str]:
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(handle))
        except FileNotFoundError:  # the handle of the listing itself
            continue
    return [path for path in found if path.startswith(str(root))]


@contextmanager
def writer(root: Path, how: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.unit.storage.endless_writer", str(root), how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() in ("half", "begun")
            yield process
        finally:
            process.kill()


async def test_the_layout_is_the_documented_one(store: FilesystemBlobStore, tmp_path: Path) -> None:
    digest = await put(store, b"content")
    path = tmp_path / "blobs-v1" / "sha256" / digest.hex[:2] / digest.hex
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o222 == 0
    assert staged(tmp_path) == []
    async with store.local(digest) as local:
        assert local == path


async def test_a_mismatch_or_a_failing_source_leaves_no_file(store: FilesystemBlobStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        await store.write(chunks(LARGE), Digest.of(b"other"))
    assert staged(tmp_path) == []


async def test_cancelling_at_any_moment_leaves_no_file_and_no_handle(
    store: FilesystemBlobStore, tmp_path: Path
) -> None:
    digest = Digest.of(LARGE)
    for steps in [*range(12), *range(20, 200, 20)]:
        writing = asyncio.create_task(store.write(chunks(LARGE), digest))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert staged(tmp_path) == []
        assert open_files(tmp_path) == []
    assert await digests(store) == set()


async def test_cancelling_the_write_of_a_small_one_leaves_all_of_it_or_nothing(
    store: FilesystemBlobStore, tmp_path: Path
) -> None:
    ended = set()
    for steps in range(40):
        content = f"blob {steps}".encode()
        writing = asyncio.create_task(put(store, content))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})
        assert staged(tmp_path) == []
        assert open_files(tmp_path) == []
        kept = await store.size(Digest.of(content))
        assert kept in (None, len(content))
        ended.add(kept is None)
    assert ended == {True, False}


async def test_cancelled_readers_leave_no_handle(store: FilesystemBlobStore, tmp_path: Path) -> None:
    digest = await put(store, LARGE)
    cancelled = 0
    for steps in range(12):
        reading = asyncio.create_task(content_of(store, digest))
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled += reading.cancel()  # threads do the reading: it may be at its end
        await asyncio.wait({reading})
    assert cancelled > 1
    gc.collect()
    await until_closed(tmp_path)


async def test_a_dropped_reader_leaves_no_handle(store: FilesystemBlobStore, tmp_path: Path) -> None:
    digest = await put(store, LARGE)
    reader = store.read(digest)
    assert await anext(reader) == LARGE[:MIB]
    assert len(open_files(tmp_path)) == 1
    del reader
    gc.collect()
    await until_closed(tmp_path)


async def until_closed(root: Path) -> None:
    async with asyncio.timeout(10):
        while open_files(root):
            await asyncio.sleep(0.01)


async def test_a_reader_reads_on_after_a_delete(store: FilesystemBlobStore) -> None:
    digest = await put(store, LARGE)
    reader = store.read(digest)
    first = await anext(reader)
    await store.delete(digest)
    assert first + b"".join([chunk async for chunk in reader]) == LARGE
    with pytest.raises(BlobNotFound):
        await content_of(store, digest)


async def test_a_file_is_moved_in_on_one_file_system(store: FilesystemBlobStore, tmp_path: Path) -> None:
    path = tmp_path / "built"
    path.write_bytes(LARGE)
    inode = path.stat().st_ino
    digest = Digest.of(LARGE)
    assert await store.add_file(path, digest) == len(LARGE)
    assert not path.exists()
    async with store.local(digest) as local:
        assert local.stat().st_ino == inode
        assert local.stat().st_mode & 0o222 == 0


async def test_a_file_is_copied_from_another_file_system(store: FilesystemBlobStore, tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at hand: /dev/shm is missing or the same")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        path = Path(folder, "built")
        path.write_bytes(LARGE)
        digest = Digest.of(LARGE)
        assert await store.add_file(path, digest) == len(LARGE)
        with pytest.raises(DigestMismatch):
            path.write_bytes(b"other")
            await store.add_file(path, Digest.of(b"expected"))
    assert await content_of(store, digest) == LARGE
    assert staged(tmp_path) == []


async def test_a_full_disk_keeps_nothing_and_goes_on(small_disk: Path) -> None:
    store = await FilesystemBlobStore.open(small_disk)
    with pytest.raises(StorageFull) as caught:
        await store.write(chunks(LARGE), Digest.of(LARGE))
    assert str(small_disk) not in str(caught.value)
    assert staged(small_disk) == []
    assert await digests(store) == set()
    assert await content_of(store, await put(store, b"small")) == b"small"


async def test_a_full_disk_takes_no_file_from_elsewhere(small_disk: Path, tmp_path: Path) -> None:
    store = await FilesystemBlobStore.open(small_disk)
    path = tmp_path / "built"
    path.write_bytes(LARGE)
    with pytest.raises(StorageFull):
        await store.add_file(path, Digest.of(LARGE))
    assert staged(small_disk) == []
    assert path.read_bytes() == LARGE


async def test_a_store_that_is_gone_is_unavailable(store: FilesystemBlobStore, tmp_path: Path) -> None:
    (tmp_path / "blobs-v1").rename(tmp_path / "away")
    (tmp_path / "blobs-v1").write_text("no folder")
    digest = Digest.of(b"content")

    async def read() -> None:
        await content_of(store, digest)

    async def local() -> None:
        async with store.local(digest):
            pytest.fail("entered")

    for use in (
        store.write(chunks(b"content"), digest),
        store.size(digest),
        store.delete(digest),
        digests(store),
        read(),
        local(),
        FilesystemBlobStore.open(tmp_path),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            await use
        assert str(tmp_path) not in str(caught.value)
        assert "ENOTDIR" in str(caught.value) or "EEXIST" in str(caught.value)


async def test_a_file_that_is_not_there_cannot_be_added(store: FilesystemBlobStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await store.add_file(tmp_path / "absent", Digest.of(b"content"))
    assert str(tmp_path) not in str(caught.value)


async def test_other_files_are_not_listed(store: FilesystemBlobStore, tmp_path: Path) -> None:
    digest = await put(store, b"content")
    (tmp_path / "blobs-v1" / "sha256" / digest.hex[:2] / ".nfs0001").write_text("not ours")
    assert await digests(store) == {digest}


async def test_a_killed_writer_leaves_no_blob_and_its_leftover_is_swept(tmp_path: Path) -> None:
    with writer(tmp_path, "stall") as process:
        store = await FilesystemBlobStore.open(tmp_path)
        assert [path.stat().st_size for path in staged(tmp_path)] == [3 * MIB]  # its writer lives: it stays
        process.kill()
        process.wait(timeout=10)
    assert len(staged(tmp_path)) == 1
    store = await FilesystemBlobStore.open(tmp_path)
    assert staged(tmp_path) == []
    assert await digests(store) == set()


async def test_leftovers_of_an_hour_ago_are_swept_empty_or_not(store: FilesystemBlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "blobs-v1" / "staging"
    old = time.time() - 3700
    for name in ("empty", "full"):
        (folder / name).write_text("" if name == "empty" else "bytes")
        os.utime(folder / name, (old, old))
    (folder / "just-made").touch()
    await FilesystemBlobStore.open(tmp_path)
    assert [path.name for path in staged(tmp_path)] == ["just-made"]


async def test_whatever_has_a_name_is_whole_after_kills(tmp_path: Path) -> None:
    chance = random.Random(20)
    for _ in range(4):
        with writer(tmp_path, "many") as process:
            await asyncio.sleep(chance.random() / 5)
            process.kill()
    store = await FilesystemBlobStore.open(tmp_path)
    assert all(path.stat().st_size == 0 for path in staged(tmp_path))  # empty ones wait for their hour
    found = await digests(store)
    assert found
    for digest in found:
        assert Digest.of(await content_of(store, digest)) == digest


async def test_opening_while_another_process_writes_disturbs_neither(tmp_path: Path) -> None:
    with writer(tmp_path, "many") as process:
        for _ in range(30):
            await FilesystemBlobStore.open(tmp_path)
        assert process.poll() is None


async def test_the_loop_goes_on_while_a_blob_is_written(store: FilesystemBlobStore) -> None:
    turns = 0

    async def endless() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), MIB):
            yield LARGE[start : start + MIB]

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await store.write(endless(), Digest.of(LARGE))
    counting.cancel()
    assert turns > 20  # a turn for each block at least: it is handed to threads and waited for
