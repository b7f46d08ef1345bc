"""What a collection keeps, what it removes and when, and that it comes back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from storage.content import Digest
from storage.errors import StorageFull, StorageUnavailable
from storage.records import Hold
from tests.unit.service.keeping import HOUR, RULES, Keeping, keeping
from tests.unit.service.parts import lock_of, wheel_digest

LOCK = lock_of("a", "b")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keeping(tmp_path) as started:
        yield started


async def collect_all(kept: Keeping) -> None:
    """Until nothing more goes."""
    await kept.collect()
    kept.time += RULES.grace
    await kept.collect()


async def test_what_is_out_of_use_goes_after_the_grace_and_comes_back_the_same(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    everything, size = await kept.digests(), await kept.size()
    assert (await kept.collect()).kept_bytes == size

    kept.time += RULES.used
    marking = await kept.collect()
    assert (marking.marked, marking.removed, marking.kept) == (len(everything), 0, len(everything))
    kept.time += RULES.grace / 2
    assert (await kept.collect()).removed == 0
    kept.time += RULES.grace
    gone = await kept.collect()
    assert (gone.removed, gone.freed, gone.kept, gone.kept_bytes) == (len(everything), size, 0, 0)
    assert (await kept.digests(), kept.freed) == (set(), size)
    assert await kept.store.artifacts.bundle(made.lock, made.target, made.toolchain) is None

    again = await kept.bundle(LOCK)
    assert again.digest == made.digest
    assert await kept.digests() == everything
    assert kept.wheels.fetched == 4


async def test_a_use_in_time_takes_the_marks_away(kept: Keeping) -> None:
    await kept.bundle(LOCK)
    kept.time += RULES.used
    await kept.collect()
    fetched = kept.wheels.fetched
    await kept.bundle(LOCK)
    await collect_all(kept)
    assert (await kept.collect()).removed == 0
    assert kept.wheels.fetched == fetched
    assert all(record.marked is None for record in await kept.store.retention.page(None, 100))


async def test_uses_are_written_seldom_and_hold_all_the_same(kept: Keeping) -> None:
    made = await kept.bundle(LOCK)
    for _ in range(2 * 72 * 6):
        kept.time += HOUR / 6
        await kept.bundle(LOCK)
    await collect_all(kept)
    assert await kept.store.artifacts.bundle(made.lock, made.target, made.toolchain) == made


@pytest.mark.parametrize("fails", ["full", "slow"])
async def test_a_bundle_is_given_out_although_its_use_cannot_be_written(
    kept: Keeping, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    made = await kept.bundle(LOCK)
    kept.restart(patience=0.05)

    async def use(bundle: Digest, at: datetime) -> bool:
        if fails == "full":
            raise StorageFull("no room left for the database")
        await asyncio.sleep(60)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(kept.store.artifacts, "use", use)
        assert await kept.bundle(LOCK) == made
        # It counts as no use, so it is not relied on either.
        kept.file(made.digest).unlink()
        assert (await kept.bundle(LOCK)).digest == made.digest
        assert made.digest in await kept.digests()


async def test_the_newest_revisions_hold_and_a_rollback_finds_its_bytes(kept: Keeping) -> None:
    locks = [lock_of("a"), lock_of("b"), lock_of("c")]
    for number, lock in enumerate(locks):
        await kept.bundle(lock)
        await kept.pin(lock, revision=f"r{number}")
    kept.time += RULES.used
    await collect_all(kept)
    wheels = [wheel_digest(name) in await kept.digests() for name in "abc"]
    assert wheels == [False, True, True]
    fetched = kept.wheels.fetched
    for lock in locks[1:]:
        await kept.bundle(lock)
    assert kept.wheels.fetched == fetched
    await kept.bundle(locks[0])
    assert kept.wheels.fetched == fetched + 1


async def test_a_hold_holds_until_the_refresh(kept: Keeping) -> None:
    await kept.bundle(LOCK)
    await kept.pin(LOCK, "other")
    await kept.store.workloads.hold("shop", "checkout", Hold(LOCK.digest, kept.time))
    await kept.store.workloads.forget("shop", "other", kept.time + HOUR)
    kept.time += RULES.used
    await collect_all(kept)
    assert await kept.digests() != set()
    await kept.store.workloads.refresh("shop", "checkout", kept.time)
    await collect_all(kept)
    assert await kept.digests() == set()


async def test_an_orphan_goes_after_the_grace(kept: Keeping, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"left by a crash")
    orphan = Digest.of(b"left by a crash")
    await kept.blobs.add_file(tmp_path / "file", orphan)
    assert (await kept.collect()).marked == 1
    assert orphan in await kept.digests()
    kept.time += RULES.grace
    assert (await kept.collect()).removed == 1
    assert await kept.digests() == set()


async def test_an_upload_in_flight_is_never_touched(kept: Keeping) -> None:
    digest = Digest.of(b"half" * 2)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        for _ in range(3):
            await collect_all(kept)
        yield b"half"

    await kept.store.contents.claim([digest])
    assert await kept.blobs.write(chunks(), digest) == 8
    assert await kept.digests() == {digest}


async def test_a_dry_run_changes_nothing_and_says_what_would_happen(kept: Keeping, tmp_path: Path) -> None:
    await kept.bundle(LOCK)
    await kept.pin(LOCK)
    (tmp_path / "file").write_bytes(b"orphan")
    await kept.blobs.add_file(tmp_path / "file", Digest.of(b"orphan"))
    kept.time += RULES.seen
    rows = await kept.store.retention.page(None, 100)
    blobs = await kept.digests()

    said = await kept.collect(dry_run=True)

    assert said.dry_run
    assert (said.marked, said.removed, said.forgotten) == (1, 0, 1)
    assert await kept.store.retention.page(None, 100) == rows
    done = await kept.collect()
    assert done.forgotten == 1
    await kept.collect()
    kept.time += RULES.grace
    said = await kept.collect(dry_run=True)
    assert (said.removed, said.kept) == (len(blobs), 0)
    assert await kept.digests() == blobs
    done = await kept.collect()
    assert replace(said, dry_run=False) == done


async def test_a_workload_that_nobody_sees_any_more_is_forgotten(kept: Keeping) -> None:
    await kept.bundle(LOCK)
    await kept.pin(LOCK, "old")
    kept.time += RULES.seen
    await kept.pin(LOCK, "new")
    assert (await kept.collect()).forgotten == 1
    assert [pin.workload for pin in (await kept.store.pins.page(None, None, 10)).items] == ["new"]
    assert await kept.store.locks.get(LOCK.digest) is not None


async def test_a_cap_takes_what_was_used_the_longest_ago(kept: Keeping) -> None:
    locks = {name: lock_of(name) for name in "abcd"}
    for lock in locks.values():
        await kept.bundle(lock)
        kept.time += 2 * HOUR
    await kept.pin(locks["a"])  # the longest ago, but pinned
    size = await kept.size()

    done = await kept.collect(replace(RULES, most=size * 3 // 4))

    left = {name for name in "abcd" if wheel_digest(name) in await kept.digests()}
    assert left == {"a", "c", "d"}
    assert (done.removed > 0, done.over, done.kept_bytes <= size * 3 // 4) == (True, 0, True)
    assert await kept.collect(replace(RULES, most=size * 3 // 4)) == replace(done, removed=0, freed=0)


async def test_a_cap_never_takes_what_is_pinned_or_was_just_used(kept: Keeping) -> None:
    await kept.bundle(lock_of("a"))
    await kept.pin(lock_of("a"))
    kept.time += 2 * HOUR
    await kept.bundle(lock_of("b"))
    size = await kept.size()
    done = await kept.collect(replace(RULES, most=1))
    assert (done.removed, done.over) == (0, size - 1)
    kept.time += 2 * HOUR
    assert (await kept.collect(replace(RULES, most=1), dry_run=True)).removed > 0
    done = await kept.collect(replace(RULES, most=1))
    assert (done.removed > 0, done.over) == (True, await kept.size() - 1)
    assert wheel_digest("a") in await kept.digests()
    assert wheel_digest("b") not in await kept.digests()


async def test_a_store_that_fails_midway_leaves_nothing_dangling(
    kept: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.bundle(LOCK)
    kept.time += RULES.used
    await kept.collect()
    kept.time += RULES.grace
    deleted = 0
    delete = kept.blobs.delete

    async def fails_the_third_time(digest: Digest) -> None:
        nonlocal deleted
        deleted += 1
        if deleted == 3:
            raise StorageUnavailable("away")
        await delete(digest)

    with monkeypatch.context() as patched:
        patched.setattr(kept.blobs, "delete", fails_the_third_time)
        with pytest.raises(StorageUnavailable):
            await kept.collect()
    assert (await kept.check()).well
    await kept.collect()
    assert await kept.digests() == set()
