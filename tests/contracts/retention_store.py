"""What every metadata store keeps to in retention: claims and references (see `content_store`), holds, removals, and
who is seen. Fixtures as in `metadata_store`."""

import asyncio
from dataclasses import replace

import pytest

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BlobInfo, ContentRecord, Hold, Keep
from tests.contracts.content_store import ClaimsContract, ReferencesContract
from tests.contracts.kept import HOUR, LATER, NOTHING, a, a_bundle, a_layer, add, every, marked
from tests.contracts.samples import NOON, SECOND, a_pin, locks


class HoldsContract:
    async def test_a_use_holds_the_bundle_and_where_it_comes_from(self, store: MetadataStore) -> None:
        held = await add(store, a_bundle(a("lock"), "bundle"), [a_layer("one"), a_layer("two")])
        await store.contents.claim([a("unrelated")])
        assert await store.retention.held(Keep(0, NOON - SECOND)) == held
        assert await store.retention.held(Keep(0, NOON)) == set()
        await store.artifacts.use(a("bundle"), NOON + HOUR)
        assert await store.retention.held(Keep(0, NOON)) == held

    async def test_a_pin_of_a_new_revision_holds_and_one_of_an_old_does_not(self, store: MetadataStore) -> None:
        old, new = await locks(store, "old", "new")
        held_old, held_new = await add(store, a_bundle(old, "one")), await add(store, a_bundle(new, "two"))
        await store.pins.add(a_pin(old, "r1"))
        await store.pins.add(a_pin(new, "r2", created=NOON + SECOND))
        await store.pins.add(a_pin(new, "r1", workload="other"))
        assert await store.retention.held(Keep(2, LATER)) == held_old | held_new
        assert await store.retention.held(Keep(1, LATER)) == held_new
        assert await store.retention.held(NOTHING) == set()
        # A revision is as new as its newest pin, whichever key that is for.
        await store.pins.add(a_pin(old, "r1", key="other", created=NOON + HOUR))
        assert await store.retention.held(Keep(1, LATER)) == held_old | held_new

    async def test_extensions_and_holds_hold(self, store: MetadataStore) -> None:
        lock, extension, on_hold = await locks(store, "lock", "extension", "on hold")
        names = {lock: "one", extension: "two", on_hold: "three"}
        held = {each: await add(store, a_bundle(each, name)) for each, name in names.items()}
        await store.pins.add(a_pin(lock, extensions=(("t", extension),)))
        assert await store.retention.held(Keep(1, LATER)) == held[lock] | held[extension]
        await store.workloads.hold("shop", "checkout", Hold(on_hold, NOON))
        assert await store.retention.held(NOTHING) == held[on_hold]
        await store.workloads.refresh("shop", "checkout", NOON)
        assert await store.retention.held(NOTHING) == set()

    async def test_of_a_held_lock_the_bundle_made_last_is_held_for_each_target(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "lock")
        await store.pins.add(a_pin(lock))
        await add(store, a_bundle(lock, "old", "t1"))
        new = await add(store, replace(a_bundle(lock, "new", "t2"), created=NOON + SECOND))
        other = await add(store, replace(a_bundle(lock, "other"), target="cp313-x"))
        assert await store.retention.held(Keep(1, LATER)) == new | other

    async def test_release_looks_again_for_holds(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "lock")
        held = await add(store, a_bundle(lock, "bundle"), [a_layer("one")])
        await store.retention.mark(held, NOON)
        await store.pins.add(a_pin(lock))
        assert await store.retention.release(list(held), Keep(1, LATER), NOON) == []
        await store.workloads.hold("shop", "other", Hold(lock, NOON))
        assert await store.retention.release(list(held), NOTHING, NOON) == []
        await store.workloads.refresh("shop", "other", NOON)
        assert await store.retention.release(list(held), Keep(0, NOON - SECOND), NOON) == []
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") is not None
        assert set(await store.retention.release(list(held), NOTHING, NOON)) == held
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") is None
        assert await store.artifacts.layer(a("one"), "3.12", "t1") is None
        assert await store.contents.needed(None, 10) == []

    async def test_what_two_bundles_share_goes_with_the_last(self, store: MetadataStore) -> None:
        shared = a_layer("shared")
        await add(store, a_bundle(a("one"), "one"), [shared])
        kept = await add(store, replace(a_bundle(a("two"), "two"), created=NOON + HOUR), [shared])
        every = [record.digest for record in await store.retention.page(None, 100)]
        await store.retention.mark(every, NOON)
        assert await store.retention.release(every, Keep(0, NOON), LATER) == [a("one")]
        assert set(await store.retention.release(every, NOTHING, LATER)) == kept | {a("one")}


class RemovalsContract:
    async def test_adopting_marks_what_is_unknown_and_learns_sizes(self, store: MetadataStore) -> None:
        await store.contents.claim([a("known")])
        blobs = [BlobInfo(a("known"), 5, NOON), BlobInfo(a("orphan"), 2**40, NOON)]
        assert await store.retention.adopt(blobs, NOON) == 1
        assert await store.retention.adopt(blobs, NOON + HOUR) == 0
        expected = [ContentRecord(a("known"), 5, None), ContentRecord(a("orphan"), 2**40, NOON)]
        assert await every(store) == sorted(expected, key=lambda record: record.digest)
        assert await store.retention.adopt([], NOON) == 0

    async def test_a_mark_keeps_its_time_until_it_is_taken_away(self, store: MetadataStore) -> None:
        await store.contents.claim([a("x")])
        await store.retention.mark([a("x")], NOON)
        await store.retention.mark([a("x")], LATER)
        assert [record.marked for record in await every(store)] == [NOON]
        await store.retention.mark([a("x")], None)
        assert await marked(store) == set()

    async def test_only_marks_that_are_old_enough_count(self, store: MetadataStore) -> None:
        await store.contents.claim([a("old"), a("new"), a("unmarked")])
        await store.retention.mark([a("old")], NOON)
        await store.retention.mark([a("new")], NOON + SECOND)
        every = [a("old"), a("new"), a("unmarked")]
        assert await store.retention.release(every, NOTHING, NOON) == [a("old")]
        async with store.retention.removing(every, NOON) as going:
            assert [record.digest for record in going] == [a("old")]
        assert await store.contents.unknown(every) == {a("old")}

    async def test_pages_go_through_all(self, store: MetadataStore) -> None:
        digests = {a(str(number)) for number in range(25)}
        await store.contents.claim(digests)
        seen: list[Digest] = []
        while page := await store.retention.page(seen[-1] if seen else None, 10):
            seen += [record.digest for record in page]
        assert seen == sorted(digests)

    async def test_collections_side_by_side(self, store: MetadataStore, another: MetadataStore) -> None:
        shared = [a_layer(f"wheel{number}") for number in range(10)]
        bundles = [replace(a_bundle(a(f"lock{n}"), f"bundle{n}")) for n in range(10)]
        for number, bundle in enumerate(bundles):
            await add(store, bundle, shared[: number + 1])
        digests = [record.digest for record in await every(store)]
        await store.retention.mark(digests, NOON)

        async def collect(by: MetadataStore, order: list[Digest]) -> None:
            for start in range(0, len(order), 7):
                released = await by.retention.release(order[start : start + 7], NOTHING, NOON)
                async with by.retention.removing(released, NOON):
                    pass

        await asyncio.gather(
            *(collect(by, order) for by in (store, another) for order in (digests, digests[::-1], digests[5:]))
        )
        await collect(store, digests)
        assert await every(store) == []
        assert await store.contents.needed(None, 10) == []


class SeenContract:
    async def test_a_workload_unseen_is_forgotten_whole(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "lock")
        await store.pins.add(a_pin(lock, extensions=(("t", lock),)))
        await store.pins.add(a_pin(lock, "r2"))
        await store.workloads.hold("shop", "checkout", Hold(lock, NOON))
        assert await store.workloads.unseen(NOON, 10) == []
        assert await store.workloads.unseen(NOON + SECOND, 10) == [("shop", "checkout")]
        assert not await store.workloads.forget("shop", "checkout", NOON)
        assert await store.workloads.forget("shop", "checkout", NOON + SECOND)
        assert (await store.pins.page(None, None, 10)).items == []
        assert (await store.workloads.get("shop", "checkout")).hold is None
        assert await store.workloads.unseen(LATER, 10) == []

    @pytest.mark.parametrize("sign", ["see", "pin", "refresh", "hold"])
    async def test_any_sign_of_life_keeps_it(self, store: MetadataStore, sign: str) -> None:
        [lock] = await locks(store, "lock")
        await store.pins.add(a_pin(lock))
        at = NOON + HOUR
        match sign:
            case "see":
                await store.workloads.see("shop", "checkout", at)
            case "pin":
                await store.pins.add(a_pin(lock, "r2", created=at))
            case "refresh":
                await store.workloads.refresh("shop", "checkout", at)
            case "hold":
                await store.workloads.hold("shop", "checkout", Hold(lock, at))
        assert await store.workloads.unseen(at, 10) == []
        assert not await store.workloads.forget("shop", "checkout", at)
        assert len((await store.pins.page(None, None, 10)).items) in (1, 2)
        assert await store.workloads.unseen(LATER, 10) == [("shop", "checkout")]

    async def test_being_seen_changes_nothing_else(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "lock")
        await store.workloads.refresh("shop", "checkout", NOON)
        before = await store.workloads.hold("shop", "checkout", Hold(lock, NOON))
        await store.workloads.see("shop", "checkout", LATER)
        assert await store.workloads.get("shop", "checkout") == before

    async def test_one_that_never_had_a_pin_is_forgotten_too(self, store: MetadataStore) -> None:
        await store.workloads.see("shop", "checkout", NOON)
        assert await store.workloads.unseen(NOON, 10) == []
        assert await store.workloads.unseen(LATER, 10) == [("shop", "checkout")]
        assert await store.workloads.forget("shop", "checkout", LATER)
        assert await store.workloads.unseen(LATER, 10) == []


class RetentionStoreContract(ClaimsContract, ReferencesContract, HoldsContract, RemovalsContract, SeenContract):
    """All of it."""
