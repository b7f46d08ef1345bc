"""Every planted damage is found, and mended; what is healthy is left alone."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from resolver.service.contents import Contents
from storage.content import Digest
from storage.errors import BlobNotFound, StorageUnavailable
from storage.records import BundleRecord, LayerRecord
from tests.unit.service.keeping import RULES, Keeping, keeping
from tests.unit.service.parts import lock_of, wheel_digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LOCK = lock_of("a", "b")
KINDS = ["wheel", "layer", "listing", "manifest", "config"]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keeping(tmp_path) as started:
        yield started


async def a_blob(kept: Keeping, made: BundleRecord, kind: str) -> Digest:
    layer = await kept.store.artifacts.layer(wheel_digest("a"), "3.12", "t1")
    assert layer is not None
    manifest = json.loads(kept.file(made.digest).read_bytes())
    return {
        "wheel": layer.wheel,
        "layer": layer.digest,
        "listing": layer.listing,
        "manifest": made.digest,
        "config": Digest(manifest["config"]["digest"]),
    }[kind]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    overwrite(path, bytes(content))


def truncate(path: Path) -> None:
    overwrite(path, path.read_bytes()[:-1])


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


async def test_all_is_well(kept: Keeping) -> None:
    await kept.bundle(LOCK)
    checked = await kept.check(repair=True)
    assert (checked.well, checked.faults, checked.garbage) == (True, [], 0)
    assert checked.blobs == len(await kept.digests())
    assert checked.bytes == await kept.size()
    assert checked.references == checked.blobs - 2  # no record needs a wheel


@pytest.mark.parametrize("damage", [flip, truncate], ids=["flipped", "truncated"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_blob_is_found_put_aside_and_made_again(
    kept: Keeping, kind: str, damage: Callable[[Path], None]
) -> None:
    made = await kept.bundle(LOCK)
    digest = await a_blob(kept, made, kind)
    everything = await kept.digests()
    damage(kept.file(digest))

    found = await kept.check()
    assert [(fault.kind, fault.digest, fault.mended) for fault in found.faults] == [("damaged", digest, False)]
    assert not found.well
    assert not (kept.root / "quarantine-v1").exists()

    mended = await kept.check(repair=True)
    assert [(fault.kind, fault.digest, fault.mended) for fault in mended.faults] == [("damaged", digest, True)]
    assert mended.well
    assert [path.name for path in (kept.root / "quarantine-v1").iterdir()] == [digest.hex]
    assert (await kept.check()).faults == []

    kept.restart()
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert (await kept.check()).faults == []
    # What only building needs is made when it is wanted; the bundle is whole without it.
    assert everything - await kept.digests() <= ({digest} if kind in ("wheel", "listing") else set())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_blob_is_found_and_made_again(kept: Keeping, kind: str) -> None:
    made = await kept.bundle(LOCK)
    digest = await a_blob(kept, made, kind)
    kept.file(digest).unlink()

    # A wheel is needed only to build from; it is fetched again when that is wanted.
    expected = [] if kind == "wheel" else [("missing", digest)]
    assert [(fault.kind, fault.digest) for fault in (await kept.check()).faults] == expected
    mended = await kept.check(repair=True)
    assert ([(fault.kind, fault.digest) for fault in mended.faults], mended.well) == (expected, True)
    assert (await kept.check()).faults == []

    assert (await kept.bundle(LOCK)).digest == made.digest
    assert (await kept.check()).faults == []


async def test_records_of_what_never_was(kept: Keeping) -> None:
    none, nothing = Digest.of(b"none"), Digest.of(b"nothing")
    layer = LayerRecord(wheel_digest("x"), "3.12", "t1", none, 1, none, 1, 1, nothing, False, True)
    bundle = BundleRecord(LOCK.digest, "cp312-x", "t1", none, 1, 1, kept.time)
    claims = await kept.store.contents.claim([none, nothing])
    assert await kept.store.artifacts.add_layer(layer, claims)
    assert await kept.store.artifacts.add_bundle(bundle, claims)
    found = await kept.check()
    assert {(fault.kind, fault.digest) for fault in found.faults} == {("missing", none), ("missing", nothing)}
    assert (await kept.check(repair=True)).well
    assert (await kept.check()).faults == []
    assert await kept.store.artifacts.layer(layer.wheel, "3.12", "t1") is None
    assert await kept.store.artifacts.bundle(LOCK.digest, "cp312-x", "t1") is None


async def test_a_bundle_whose_record_lacks_a_part(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    layer = await a_blob(kept, made, "layer")
    # Its records say that it needs its manifest alone.
    async with kept.store.contents.dropping(made.digest):
        pass
    await kept.store.retention.mark([made.digest], kept.time)
    async with kept.store.retention.removing([made.digest], kept.time):
        pass
    claims = await kept.store.contents.claim([made.digest])
    assert await kept.store.artifacts.add_bundle(made, claims)
    async with kept.store.contents.dropping(layer):
        kept.file(layer).unlink()

    assert [(fault.kind, fault.digest) for fault in (await kept.check()).faults] == [("incomplete", made.digest)]
    assert (await kept.check(repair=True)).well
    assert (await kept.check()).faults == []
    kept.restart()
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert (await kept.check()).faults == []


async def test_a_blob_without_a_row_is_garbage_and_no_fault(kept: Keeping, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"orphan")
    await kept.blobs.add_file(tmp_path / "file", Digest.of(b"orphan"))
    checked = await kept.check(repair=True)
    assert (checked.well, checked.faults, checked.garbage, checked.garbage_bytes) == (True, [], 1, 6)
    await kept.collect()
    kept.time += RULES.grace
    await kept.collect()
    assert await kept.digests() == set()


async def test_what_cannot_be_mended_remains(kept: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await kept.bundle(LOCK)
    digest = await a_blob(kept, made, "layer")
    flip(kept.file(digest))

    async def refuse(_: Digest) -> None:
        raise StorageUnavailable("read-only")

    with monkeypatch.context() as patched:
        patched.setattr(kept.blobs, "quarantine", refuse)
        checked = await kept.check(repair=True)
    assert (checked.well, [fault.mended for fault in checked.faults]) == (False, [False])
    assert (await kept.check(repair=True)).well


async def test_a_rotten_wheel_is_fetched_again_when_it_is_wanted(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    async with kept.store.contents.dropping(await a_blob(kept, made, "layer")):
        pass
    kept.file(wheel_digest("a")).unlink()
    kept.restart()
    fetched = kept.wheels.fetched
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert kept.wheels.fetched == fetched + 1


@pytest.mark.parametrize("kind", ["manifest", "listing"])
async def test_a_rotten_document_heals_where_it_is_read(kept: Keeping, kind: str) -> None:
    made = await kept.bundle(LOCK)
    digest = await a_blob(kept, made, kind)
    flip(kept.file(digest))
    kept.restart()
    if kind == "listing":
        async with kept.store.contents.dropping(made.digest):
            pass
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert (await kept.check()).faults == []


async def read(contents: Contents, digest: Digest, start: int = 0, length: int | None = None) -> bytes:
    content = await contents.find(digest)
    wanted = content.size - start if length is None else length
    return b"".join([chunk async for chunk in contents.read(content, start, wanted)])


async def test_a_whole_read_of_a_damaged_blob_heals(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    layer = await a_blob(kept, made, "layer")
    contents = Contents(kept.blobs, kept.store.artifacts, kept.healing)
    sound = await read(contents, layer)
    flip(kept.file(layer))
    assert await read(contents, layer) != sound
    await healed(kept)
    with pytest.raises(BlobNotFound):
        await read(contents, layer)
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert await read(contents, layer) == sound


async def test_a_whole_read_of_what_another_layer_unpacks_to_heals(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    layer = await kept.store.artifacts.layer(wheel_digest("a"), "3.12", "t1")
    assert layer is not None
    contents = Contents(kept.blobs, kept.store.artifacts, kept.healing)
    other = bytes(layer.tar_size)
    overwrite(kept.file(layer.digest), zstd.compress(other))
    assert await read(contents, layer.diff_id, 0, 3) == other[:3]
    assert not kept.healing.suspects  # a part does not tell
    assert await read(contents, layer.diff_id) == other
    await healed(kept)
    with pytest.raises(BlobNotFound):
        await read(contents, layer.diff_id)
    assert (await kept.bundle(LOCK)).digest == made.digest


async def test_a_read_of_a_missing_blob_heals(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    layer = await a_blob(kept, made, "layer")
    contents = Contents(kept.blobs, kept.store.artifacts, kept.healing)
    kept.file(layer).unlink()
    with pytest.raises(BlobNotFound):
        await read(contents, layer)
    await healed(kept)
    assert (await kept.bundle(LOCK)).digest == made.digest
    assert Digest.of(await read(contents, layer)) == layer


async def test_parts_and_reads_given_up_and_sound_blobs_raise_no_suspicion(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    layer = await a_blob(kept, made, "layer")
    contents = Contents(kept.blobs, kept.store.artifacts, kept.healing)
    content = await contents.find(layer)
    await read(contents, layer)
    await read(contents, layer, 3)
    await read(contents, layer, 0, 3)
    given_up = contents.read(content, 0, content.size)
    await anext(given_up)
    await given_up.aclose()  # type: ignore[attr-defined]  # an async generator, which is how a response ends it
    with pytest.raises(BlobNotFound):
        await read(contents, Digest.of(b"never was"))
    await healed(kept)
    assert (await kept.check()).faults == []
    assert await kept.store.contents.is_needed(layer)
    assert not (kept.root / "quarantine-v1").exists()


async def healed(kept: Keeping) -> None:
    """Until nothing is suspected any more."""
    while kept.healing.suspects:
        await asyncio.sleep(0.01)
