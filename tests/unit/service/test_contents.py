"""What is read once for many who ask at the same time, and what becomes of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from resolver.service.contents import SMALL, Contents
from resolver.service.healing import Healing
from resolver.service.recent import Recent
from storage.blobs.memory import MemoryBlobStore
from storage.content import Digest
from storage.errors import BlobNotFound
from storage.metadata.store import SqlMetadataStore


class Counting(MemoryBlobStore):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = self.reads = 0

    async def size(self, digest: Digest) -> int | None:
        self.looks += 1
        return await super().size(digest)

    def read(
        self, digest: Digest, start: int = 0, length: int | None = None, most: int = SMALL
    ) -> AsyncIterator[bytes]:
        self.reads += 1
        return super().read(digest, start, length, most)


@dataclass
class Bench:
    blobs: Counting
    store: SqlMetadataStore
    healing: Healing

    def contents(self, seconds: float) -> Contents:
        return Contents(self.blobs, self.store.artifacts, self.healing, trusted=timedelta(seconds=seconds))

    async def add(self, content: bytes) -> Digest:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        digest = Digest.of(content)
        await self.blobs.write(chunks(), digest)
        self.blobs.looks = self.blobs.reads = 0
        return digest


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    blobs = Counting()
    healing = Healing(blobs, store.contents)
    yield Bench(blobs, store, healing)
    await healing.close()
    await store.close()


async def test_a_small_blob_is_looked_for_and_read_once_for_many(bench: Bench) -> None:
    digest = await bench.add(b"small" * 100)
    contents = bench.contents(seconds=60)
    for start, length in ((0, 500), (5, 10), (0, 500), (495, 5)):
        assert await contents.piece(await contents.find(digest), start, length) == (b"small" * 100)[start:][:length]
    assert (bench.blobs.looks, bench.blobs.reads) == (1, 1)


async def test_what_is_not_trusted_is_asked_for_each_time(bench: Bench) -> None:
    digest = await bench.add(b"small")
    contents = bench.contents(seconds=0)
    for _ in range(3):
        assert await contents.piece(await contents.find(digest), 0, 5) == b"small"
    assert (bench.blobs.looks, bench.blobs.reads) == (3, 3)


async def test_a_part_of_a_large_blob_is_read_alone(bench: Bench) -> None:
    content = bytes(range(256)) * 1024
    digest = await bench.add(content)
    contents = bench.contents(seconds=60)
    found = await contents.find(digest)
    assert await contents.piece(found, 1000, 5000) == content[1000:6000]
    assert b"".join([chunk async for chunk in contents.read(found, 0, found.size)]) == content


async def test_one_that_goes_away_meanwhile_is_found_out_by_who_reads_it(bench: Bench) -> None:
    digest = await bench.add(bytes(2 * SMALL))
    contents = bench.contents(seconds=60)
    found = await contents.find(digest)
    await bench.blobs.delete(digest)
    with pytest.raises(BlobNotFound):
        await anext(contents.read(await contents.find(digest), 0, found.size))
    assert bench.healing.suspects == 1
    with pytest.raises(BlobNotFound):
        await contents.find(digest)


def test_what_was_found_out_is_good_for_a_while_and_so_much_of_it() -> None:
    now = 0.0
    recent: Recent[str, int] = Recent(5, 2, clock=lambda: now)
    recent.put("a", 1)
    now = 4.0
    recent.put("b", 2)
    assert (recent.get("a"), recent.get("b")) == (1, 2)
    now = 5.0
    assert (recent.get("a"), recent.get("b")) == (None, 2)
    recent.put("c", 3)
    recent.put("d", 4)
    assert [recent.get(name) for name in "abcd"] == [None, None, 3, 4]
    recent.forget("c")
    assert recent.get("c") is None
