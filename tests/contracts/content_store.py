"""What every metadata store keeps to in contents: who claims them, and what refers to them. Fixtures as in
`metadata_store`."""

import asyncio
from dataclasses import replace

import pytest

from storage.protocols import MetadataStore
from storage.records import Keep
from tests.contracts.kept import LATER, NOTHING, a, a_bundle, a_layer, add, every, marked, remove
from tests.contracts.samples import NOON, SECOND


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
