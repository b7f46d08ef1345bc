"""What every metadata store keeps to in retention: claims, references, holds, removals, and who is seen. Fixtures as in
`metadata_store`."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BlobInfo, BundleRecord, ContentRecord, Hold, Keep, LayerRecord
from tests.contracts.samples import NOON, SECOND, a_pin, locks

HOUR = timedelta(hours=1)
LATER = NOON + 10 * HOUR
NOTHING = Keep(revisions=0, used_after=LATER)


def a(name: str) -> Digest:
    return Digest.of(name.encode())


def a_layer(wheel: str, toolchain: str = "t1") -> LayerRecord:
    return LayerRecord(
        wheel=a(wheel),
        python="3.12",
        toolchain=toolchain,
        digest=a(f"{wheel} layer {toolchain}"),
        size=10,
        diff_id=a(f"{wheel} tar"),
        tar_size=20,
        unpacked_size=20,
        listing=a(f"{wheel} listing"),
        has_pth=False,
        has_bytecode=True,
    )


def a_bundle(lock: Digest, name: str, toolchain: str = "t1") -> BundleRecord:
    return BundleRecord(lock, "cp312-x", toolchain, a(name), 1, 1, NOON)


async def add(store: MetadataStore, bundle: BundleRecord, layers: Sequence[LayerRecord] = ()) -> set[Digest]:
    """Write the layers and a bundle of them, as building it does; returns all contents that it holds."""
    for layer in layers:
        claims = await store.contents.claim([layer.digest, layer.listing])
        assert await store.artifacts.add_layer(layer, claims)
    parts = [bundle.digest, a("config"), *(layer.digest for layer in layers)]
    assert await store.artifacts.add_bundle(bundle, await store.contents.claim(parts))
    await store.contents.claim([layer.wheel for layer in layers])
    return {*parts, *(layer.listing for layer in layers), *(layer.wheel for layer in layers)}


async def every(store: MetadataStore) -> list[ContentRecord]:
    return await store.retention.page(None, 1000)


async def marked(store: MetadataStore) -> set[Digest]:
    return {record.digest for record in await every(store) if record.marked is not None}


async def remove(store: MetadataStore, digests: Sequence[Digest]) -> set[Digest]:
    async with store.retention.removing(digests, LATER) as going:
        return {record.digest for record in going}


class ClaimsContract:
    async def test_a_claim_lasts_until_the_content_is_gone(self, store: MetadataStore) -> None:
        first = await store.contents.claim([a("x"), a("y")])
        assert set(first) == {a("x"), a("y")}
        assert await store.contents.claim([a("x")]) == {a("x"): first[a("x")]}
        assert await store.contents.claim([]) == {}
        await store.retention.mark([a("x")], NOON)
        assert await store.retention.release([a("x")], NOTHING, NOON) == [a("x")]
        assert (await store.contents.claim([a("x")]))[a("x")] != first[a("x")]
        await store.retention.mark([a("y")], NOON)
        assert await remove(store, [a("y")]) == {a("y")}
        assert (await store.contents.claim([a("y")]))[a("y")] != first[a("y")]

    async def test_a_claim_takes_the_mark_away(self, store: MetadataStore) -> None:
        await store.contents.claim([a("x"), a("y")])
        await store.retention.mark([a("x"), a("y")], NOON)
        assert await marked(store) == {a("x"), a("y")}
        await store.contents.claim([a("x")])
        assert await marked(store) == {a("y")}
        assert await store.retention.release([a("x"), a("y")], NOTHING, LATER) == [a("y")]
        assert await remove(store, [a("x"), a("y")]) == {a("y")}

    async def test_thousands_are_claimed_at_once(self, store: MetadataStore) -> None:
        digests = [a(str(number)) for number in range(1200)]
        claims = await store.contents.claim(digests)
        assert set(claims) == set(digests)
        bundle = a_bundle(a("lock"), digests[0])
        assert await store.artifacts.add_bundle(replace(bundle, digest=digests[0]), claims)
        assert await store.retention.held(Keep(0, NOON - SECOND)) == set(digests)

    async def test_claims_at_once_are_as_good_as_one_by_one(self, store: MetadataStore) -> None:
        layers = [a_layer(f"wheel {number}") for number in range(10)]
        asked = [[layer.digest, layer.listing] for layer in layers]
        claims = await asyncio.gather(*(store.contents.claim(digests) for digests in asked))
        assert [set(each) for each in claims] == [set(digests) for digests in asked]
        for layer, each in zip(layers, claims, strict=True):
            assert await store.artifacts.add_layer(layer, each)

    async def test_who_leaves_takes_nobody_elses_claim_along(self, store: MetadataStore) -> None:
        layer = a_layer("wheel")
        leaving = asyncio.create_task(store.contents.claim([a("other")]))
        staying = asyncio.create_task(store.contents.claim([layer.digest, layer.listing]))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await store.artifacts.add_layer(layer, await staying)

    async def test_claims_of_many_at_once_end(self, store: MetadataStore, another: MetadataStore) -> None:
        digests = [a(str(number)) for number in range(50)]
        both = [store, another]
        found = await asyncio.gather(*(both[n % 2].contents.claim(digests[n:] + digests[:n]) for n in range(20)))
        assert all(claims == found[0] for claims in found)

    @pytest.mark.parametrize("what", ["digest", "listing"])
    async def test_a_layer_is_refused_once_what_it_needs_was_gone(self, store: MetadataStore, what: str) -> None:
        layer = a_layer("wheel")
        needed = {"digest": layer.digest, "listing": layer.listing}[what]
        claims = await store.contents.claim([layer.digest, layer.listing])
        await store.retention.mark([needed], NOON)
        await store.retention.release([needed], NOTHING, NOON)
        assert not await store.artifacts.add_layer(layer, claims)
        await remove(store, [needed])
        assert not await store.artifacts.add_layer(layer, claims)
        await store.contents.claim([needed])
        assert not await store.artifacts.add_layer(layer, claims)
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") is None

    async def test_a_bundle_is_refused_once_a_part_of_it_was_gone(self, store: MetadataStore) -> None:
        bundle = a_bundle(a("lock"), "bundle")
        claims = await store.contents.claim([bundle.digest, a("part")])
        async with store.contents.dropping(a("part")):
            pass
        assert not await store.artifacts.add_bundle(bundle, claims)
        assert await store.artifacts.bundle(bundle.lock, bundle.target, bundle.toolchain) is None
        assert await store.artifacts.add_bundle(bundle, await store.contents.claim([bundle.digest, a("part")]))

    async def test_a_reference_takes_the_marks_of_what_it_needs_away(self, store: MetadataStore) -> None:
        layer, bundle = a_layer("wheel"), a_bundle(a("lock"), "bundle")
        claims = await store.contents.claim([layer.digest, layer.listing, bundle.digest])
        await store.retention.mark(list(claims), NOON)
        assert await store.artifacts.add_layer(layer, claims)
        assert await store.artifacts.add_bundle(bundle, {bundle.digest: claims[bundle.digest]})
        assert await marked(store) == set()

    async def test_a_claim_during_a_removal_waits_and_is_a_new_one(
        self, store: MetadataStore, another: MetadataStore
    ) -> None:
        before = await store.contents.claim([a("x")])
        await store.retention.mark([a("x")], NOON)
        async with store.retention.removing([a("x")], NOON) as going:
            assert [record.digest for record in going] == [a("x")]
            claiming = asyncio.create_task(another.contents.claim([a("x")]))
            await asyncio.wait({claiming}, timeout=0.3)
            assert not claiming.done()
        assert await claiming != before
        assert [record.digest for record in await every(store)] == [a("x")]

    async def test_a_removal_that_fails_forgets_nothing(self, store: MetadataStore) -> None:
        await store.contents.claim([a("x")])
        await store.retention.mark([a("x")], NOON)
        with pytest.raises(RuntimeError):
            async with store.retention.removing([a("x")], NOON):
                raise RuntimeError
        assert await marked(store) == {a("x")}


class ReferencesContract:
    async def test_what_records_need(self, store: MetadataStore) -> None:
        one, two = a_layer("one"), a_layer("two")
        held = await add(store, a_bundle(a("lock"), "bundle"), [one, two])
        needed = await store.contents.needed(None, 100)
        assert set(needed) == held - {one.wheel, two.wheel}
        assert len(needed) == len(set(needed))
        assert [await store.contents.is_needed(each) for each in needed] == [True] * len(needed)
        assert not await store.contents.is_needed(one.wheel)
        paged, last = [], None
        while page := await store.contents.needed(last, 2):
            paged += page
            last = page[-1]
        assert paged == needed
        assert await store.contents.bundles(None, 10) == [a("bundle")]
        assert await store.contents.bundles(a("bundle"), 10) == []
        assert await store.contents.unknown([*held, a("other")]) == {a("other")}

    @pytest.mark.parametrize("what", ["layer", "listing", "bundle", "config"])
    async def test_dropping_a_content_drops_what_needs_it(self, store: MetadataStore, what: str) -> None:
        one, two = a_layer("one"), a_layer("two")
        bundle, other = a_bundle(a("lock"), "bundle"), a_bundle(a("other"), "other")
        await add(store, bundle, [one, two])
        await add(store, replace(other, digest=a("other bundle")), [two])
        dropped = {"layer": one.digest, "listing": one.listing, "bundle": bundle.digest, "config": a("config")}[what]
        async with store.contents.dropping(dropped):
            pass
        assert not await store.contents.is_needed(dropped)
        kept = [
            await store.artifacts.layer(one.wheel, "3.12", "t1") is not None,
            await store.artifacts.bundle(bundle.lock, "cp312-x", "t1") is not None,
            await store.artifacts.bundle(other.lock, "cp312-x", "t1") is not None,
        ]
        expected = {
            "layer": [False, False, True],
            "listing": [False, True, True],
            "bundle": [True, False, True],
            "config": [True, False, False],
        }
        assert kept == expected[what]
        assert await store.artifacts.layer(two.wheel, "3.12", "t1") == two

    async def test_a_drop_that_fails_drops_nothing(self, store: MetadataStore) -> None:
        await add(store, a_bundle(a("lock"), "bundle"))
        with pytest.raises(RuntimeError):
            async with store.contents.dropping(a("config")):
                raise RuntimeError
        assert await store.contents.is_needed(a("config"))

    async def test_a_use_of_what_is_not_there(self, store: MetadataStore) -> None:
        assert not await store.artifacts.use(a("bundle"), NOON)
        await add(store, a_bundle(a("lock"), "bundle"))
        assert await store.artifacts.use(a("bundle"), NOON)


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
