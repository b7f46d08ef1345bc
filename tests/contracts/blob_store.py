"""What every blob store keeps to. A backend's tests subclass a suite and give it its fixtures:

- `store`: an empty store
- `another` (SharedBlobStoreContract): a second opener of the same contents, as another process would be
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.blob_protocols import BlobStore
from storage.content import Digest
from storage.errors import BlobNotFound, DigestMismatch

MIB = 1024 * 1024
LARGE = bytes(range(256)) * (4 * 1024 * 5) + b"the end"  # 20 MiB and a bit


class SourceFailed(Exception):
    pass


async def chunks(content: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def put(store: BlobStore, content: bytes) -> Digest:
    digest = Digest.of(content)
    assert await store.write(chunks(content), digest) == len(content)
    return digest


async def content_of(store: BlobStore, digest: Digest, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(digest, start, length)])


async def digests(store: BlobStore) -> set[Digest]:
    return {info.digest async for info in store.all()}


class BlobStoreContract:
    @pytest.mark.parametrize("content", [b"", b"x", b"y" * MIB, LARGE], ids=["empty", "byte", "chunk", "large"])
    async def test_reads_back_what_was_written(self, store: BlobStore, content: bytes) -> None:
        digest = await put(store, content)
        assert await store.size(digest) == len(content)
        assert await content_of(store, digest) == content

    @pytest.mark.parametrize("size", [1, 1000, MIB - 1, MIB + 1, 7 * MIB])
    async def test_chunks_of_any_size_can_be_written(self, store: BlobStore, size: int) -> None:
        content = LARGE[: 3 * MIB + 5] if size > 1 else LARGE[:5000]
        digest = Digest.of(content)
        assert await store.write(chunks(content, size), digest) == len(content)
        assert await content_of(store, digest) == content

    async def test_reads_in_chunks_of_a_mebibyte_at_most(self, store: BlobStore) -> None:
        digest = await put(store, LARGE)
        assert {len(chunk) <= MIB async for chunk in store.read(digest)} == {True}

    async def test_reads_in_smaller_chunks_where_asked_for(self, store: BlobStore) -> None:
        digest = await put(store, LARGE)
        read = [chunk async for chunk in store.read(digest, 5, most=70_000)]
        assert {len(chunk) <= 70_000 for chunk in read} == {True}
        assert b"".join(read) == LARGE[5:]

    @pytest.mark.parametrize("length", [None, 0, 1, MIB, MIB + 1, 3 * MIB, len(LARGE)])
    async def test_reads_ranges(self, store: BlobStore, length: int | None) -> None:
        digest = await put(store, LARGE)
        for start in (0, 1, MIB - 1, MIB, len(LARGE) - 1, len(LARGE), len(LARGE) + 5):
            expected = LARGE[start:] if length is None else LARGE[start : start + length]
            assert await content_of(store, digest, start, length) == expected

    async def test_an_empty_blob_has_only_empty_ranges(self, store: BlobStore) -> None:
        digest = await put(store, b"")
        for start, length in ((0, None), (0, 0), (0, 5), (5, None), (5, 5)):
            assert await content_of(store, digest, start, length) == b""

    @pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 1), (5, None), (5, 5)])
    async def test_ranges_of_what_is_not_there(self, store: BlobStore, start: int, length: int | None) -> None:
        with pytest.raises(BlobNotFound):
            await content_of(store, Digest.of(b"absent"), start, length)

    async def test_what_is_not_there_is_not_found(self, store: BlobStore) -> None:
        absent = Digest.of(b"absent")
        assert await store.size(absent) is None
        with pytest.raises(BlobNotFound) as caught:
            await anext(store.read(absent))
        assert caught.value.digest == absent
        with pytest.raises(BlobNotFound):
            async with store.local(absent):
                pytest.fail("entered")

    async def test_wrong_bytes_leave_nothing(self, store: BlobStore) -> None:
        expected = Digest.of(b"right")
        with pytest.raises(DigestMismatch) as caught:
            await store.write(chunks(b"wrong"), expected)
        assert (caught.value.expected, caught.value.actual) == (expected, Digest.of(b"wrong"))
        assert caught.value.size == 5
        assert await store.size(expected) is None
        assert await digests(store) == set()

    async def test_half_of_the_bytes_leave_nothing(self, store: BlobStore) -> None:
        with pytest.raises(DigestMismatch):
            await store.write(chunks(LARGE[: 2 * MIB]), Digest.of(LARGE))
        assert await digests(store) == set()

    async def test_a_source_that_fails_leaves_nothing_and_is_heard(self, store: BlobStore) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield LARGE[: 2 * MIB]
            raise SourceFailed

        with pytest.raises(SourceFailed):
            await store.write(failing(), Digest.of(LARGE))
        assert await digests(store) == set()

    async def test_the_failures_of_a_source_are_not_taken_for_the_stores(self, store: BlobStore) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield LARGE[: 2 * MIB]
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await store.write(failing(), Digest.of(LARGE))

    async def test_a_cancelled_write_leaves_nothing(self, store: BlobStore) -> None:
        stalled = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            yield LARGE[: 2 * MIB]
            stalled.set()
            await asyncio.Event().wait()

        writing = asyncio.create_task(store.write(stalling(), Digest.of(LARGE)))
        await stalled.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await digests(store) == set()
        assert await content_of(store, await put(store, LARGE)) == LARGE

    async def test_what_is_there_already_is_not_written_again(self, store: BlobStore) -> None:
        digest = await put(store, b"there")
        [before] = [info async for info in store.all()]

        async def never() -> AsyncIterator[bytes]:
            raise SourceFailed
            yield b""

        assert await store.write(never(), digest) == 5
        assert [info async for info in store.all()] == [before]

    async def test_many_writers_of_one_blob(self, store: BlobStore) -> None:
        digest = Digest.of(LARGE)
        sizes = await asyncio.gather(*(store.write(chunks(LARGE), digest) for _ in range(8)))
        assert sizes == [len(LARGE)] * 8
        assert await content_of(store, digest) == LARGE
        assert await digests(store) == {digest}

    async def test_a_right_writer_wins_over_wrong_ones(self, store: BlobStore) -> None:
        digest = Digest.of(LARGE)
        wrong = LARGE[:-1] + b"?"
        outcomes = await asyncio.gather(
            *(store.write(chunks(content), digest) for content in (wrong, LARGE, wrong)), return_exceptions=True
        )
        assert outcomes[1] == len(LARGE)
        assert await content_of(store, digest) == LARGE

    @pytest.mark.parametrize("content", [b"", b"file", LARGE], ids=["empty", "small", "large"])
    async def test_adds_files(self, store: BlobStore, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "added"
        path.write_bytes(content)
        digest = Digest.of(content)
        assert await store.add_file(path, digest) == len(content)
        assert await content_of(store, digest) == content

    async def test_a_file_with_other_content_is_not_added(self, store: BlobStore, tmp_path: Path) -> None:
        path = tmp_path / "added"
        path.write_bytes(b"wrong")
        with pytest.raises(DigestMismatch) as caught:
            await store.add_file(path, Digest.of(b"right"))
        assert (caught.value.actual, caught.value.size) == (Digest.of(b"wrong"), 5)
        assert await digests(store) == set()

    async def test_a_file_that_is_there_already_is_fine(self, store: BlobStore, tmp_path: Path) -> None:
        digest = await put(store, b"there")
        path = tmp_path / "added"
        path.write_bytes(b"there")
        assert await store.add_file(path, digest) == 5
        assert await content_of(store, digest) == b"there"

    async def test_a_local_file_has_the_content(self, store: BlobStore) -> None:
        digest = await put(store, LARGE)
        async with store.local(digest) as path:
            assert path.read_bytes() == LARGE
        assert await content_of(store, digest) == LARGE

    async def test_lists_every_blob(self, store: BlobStore) -> None:
        begun = datetime.now(UTC) - timedelta(seconds=5)  # a store may keep whole seconds
        contents = {Digest.of(content): content for content in (str(number).encode() for number in range(40))}
        for content in contents.values():
            await put(store, content)
        infos = [info async for info in store.all()]
        assert {info.digest: info.size for info in infos} == {d: len(c) for d, c in contents.items()}
        assert all(begun <= info.modified <= datetime.now(UTC) + timedelta(seconds=5) for info in infos)

    async def test_deletes(self, store: BlobStore) -> None:
        gone, kept = await put(store, b"gone"), await put(store, b"kept")
        await store.delete(gone)
        await store.delete(gone)
        assert await store.size(gone) is None
        with pytest.raises(BlobNotFound):
            await content_of(store, gone)
        assert await digests(store) == {kept}
        assert await content_of(store, await put(store, b"gone")) == b"gone"

    async def test_answers_a_ping(self, store: BlobStore) -> None:
        await store.ping()


class SharedBlobStoreContract(BlobStoreContract):
    async def test_another_opener_sees_what_is_whole_only(self, store: BlobStore, another: BlobStore) -> None:
        digest = Digest.of(LARGE)
        half, go_on = asyncio.Event(), asyncio.Event()

        async def pausing() -> AsyncIterator[bytes]:
            yield LARGE[: 3 * MIB]
            half.set()
            await go_on.wait()
            yield LARGE[3 * MIB :]

        writing = asyncio.create_task(store.write(pausing(), digest))
        await half.wait()
        assert await another.size(digest) is None
        assert await digests(another) == set()
        go_on.set()
        assert await writing == len(LARGE)
        assert await content_of(another, digest) == LARGE

    async def test_two_openers_write_one_blob(self, store: BlobStore, another: BlobStore) -> None:
        digest = Digest.of(LARGE)
        writers = [opener.write(chunks(LARGE), digest) for opener in (store, another) for _ in range(4)]
        assert await asyncio.gather(*writers) == [len(LARGE)] * 8
        assert await content_of(another, digest) == LARGE
        assert await digests(store) == {digest}
