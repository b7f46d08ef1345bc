"""What every store of pins and of workloads keeps to (storage.protocols.PinStore, WorkloadStore)."""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from storage.content import Digest
from storage.errors import StorageError
from storage.protocols import MetadataStore
from storage.records import (
    BundleRecord,
    Hold,
    Holders,
    Page,
    PinName,
    PinRecord,
    Standing,
    WorkloadRecord,
)
from tests.contracts.samples import MICROSECOND, NOON, SECOND, a_lock, a_pin, locks


class PinStoreContract:
    async def test_a_pin_comes_back_with_its_extensions(self, store: MetadataStore) -> None:
        one, two, three = await locks(store, "one", "two", "three")
        pin = a_pin(one, stale=True, extensions=(("z", two), ("a", three)))
        assert await store.pins.get("shop", "checkout", "r1", "key") is None
        assert await store.pins.add(pin) == pin
        assert await store.pins.get("shop", "checkout", "r1", "key") == pin
        for other in (("bank", "checkout", "r1", "key"), ("shop", "x", "r1", "key"), ("shop", "checkout", "r", "key")):
            assert await store.pins.get(*other) is None
        assert await store.pins.get("shop", "checkout", "r1", "other") is None

    async def test_the_first_pin_stands(self, store: MetadataStore, another: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        first = await store.pins.add(a_pin(one))
        second = a_pin(two, created=NOON + SECOND, stale=True, extensions=(("t", two),))
        assert await another.pins.add(second) == first == a_pin(one)
        assert await another.pins.get("shop", "checkout", "r1", "key") == first

    async def test_of_twenty_writers_one_wins(self, store: MetadataStore, another: MetadataStore) -> None:
        digests = await locks(store, *(str(number) for number in range(20)))
        rivals = [
            a_pin(lock, created=NOON + number * SECOND, extensions=((f"t{number}", lock),))
            for number, lock in enumerate(digests)
        ]
        openers = (store, another)
        standing = await asyncio.gather(*(openers[n % 2].pins.add(pin) for n, pin in enumerate(rivals)))
        assert len(set(standing)) == 1
        assert standing[0] in rivals
        assert await store.pins.get("shop", "checkout", "r1", "key") == standing[0]

    async def test_of_twenty_extensions_of_one_pin_one_wins(self, store: MetadataStore, another: MetadataStore) -> None:
        one, *digests = await locks(store, "one", *(str(number) for number in range(20)))
        pin = await store.pins.add(a_pin(one))
        openers = (store, another)
        standing = await asyncio.gather(
            *(openers[n % 2].pins.extend(pin, f"t{n % 3}", lock) for n, lock in enumerate(digests))
        )
        rivals = [a_pin(one, extensions=((f"t{n % 3}", lock),)) for n, lock in enumerate(digests)]
        assert len(set(standing)) == 1
        assert standing[0] in rivals
        assert await store.pins.get("shop", "checkout", "r1", "key") == standing[0]

    async def test_only_the_pin_as_it_stands_is_extended(self, store: MetadataStore) -> None:
        one, two, three = await locks(store, "one", "two", "three")
        bare = await store.pins.add(a_pin(one))
        once = await store.pins.extend(bare, "z", two)
        assert once == a_pin(one, extensions=(("z", two),))
        assert await store.pins.extend(bare, "a", three) == once  # it was held to `bare`, which is not what stands
        twice = await store.pins.extend(once, "a", three)
        assert twice == a_pin(one, extensions=(("z", two), ("a", three)))
        assert await store.pins.extend(twice, "z", three) == twice  # that class has its lock

    async def test_a_pin_with_a_lock_that_is_not_there_leaves_nothing(self, store: MetadataStore) -> None:
        [one] = await locks(store, "one")
        absent = Digest.of(b"absent")
        for pin in (a_pin(absent), a_pin(one, extensions=(("t", one), ("u", absent)))):
            with pytest.raises(StorageError):
                await store.pins.add(pin)
        assert await store.pins.get("shop", "checkout", "r1", "key") is None
        assert await store.pins.page(None, None, 10) == Page([], None)

    async def test_what_is_not_there_cannot_be_extended(self, store: MetadataStore) -> None:
        [one] = await locks(store, "one")
        with pytest.raises(StorageError):
            await store.pins.extend(a_pin(one), "t", one)
        pin = await store.pins.add(a_pin(one))
        with pytest.raises(StorageError):
            await store.pins.extend(pin, "t", Digest.of(b"absent"))
        assert await store.pins.get("shop", "checkout", "r1", "key") == pin

    async def test_the_newest_pin_that_is_not_stale(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        pins = [
            a_pin(one, "r1", created=NOON),
            a_pin(two, "r2", created=NOON + SECOND, extensions=(("t", one), ("u", two))),
            a_pin(one, "r3", created=NOON + 2 * SECOND, stale=True),
            a_pin(one, "r4", created=NOON + 3 * SECOND, key="other"),
            a_pin(one, "r4", created=NOON + 3 * SECOND, workload="cart"),
            a_pin(one, "r4", created=NOON + 3 * SECOND, namespace="bank"),
        ]
        for pin in (pins[1], pins[0], *pins[2:]):
            await store.pins.add(pin)

        async def newest(after: datetime | None) -> PinRecord | None:
            return await store.pins.newest("shop", "checkout", "key", after)

        assert await newest(None) == pins[1]
        assert await newest(NOON + SECOND - MICROSECOND) == pins[1]
        assert await newest(NOON + SECOND) is None
        assert await store.pins.newest("shop", "absent", "key", None) is None

    async def test_pages_through_pins(self, store: MetadataStore) -> None:
        [one, two] = await locks(store, "one", "two")
        added = set()
        for number in range(60):
            extensions = tuple((f"t{n}", two) for n in range(number % 4))
            namespace = "shop" if number % 3 else "bank"
            pin = a_pin(
                one, f"r{number}", namespace=namespace, created=NOON + number % 2 * SECOND, extensions=extensions
            )
            added.add(await store.pins.add(pin))
        for asked in (None, "shop", "bank"):
            expected = {pin for pin in added if asked in (None, pin.namespace)}
            seen: list[PinRecord] = []
            cursor: str | None = None
            while len(seen) < len(expected):
                page = await store.pins.page(asked, cursor, 7)
                assert 0 < len(page.items) <= 7
                seen += page.items
                cursor = page.cursor
            assert (len(seen), set(seen), cursor) == (len(expected), expected, None)
            assert [pin.created for pin in seen] == sorted((pin.created for pin in seen), reverse=True)
        assert await store.pins.page("absent", None, 7) == Page([], None)

    async def test_pages_through_the_pins_of_a_lock(self, store: MetadataStore) -> None:
        one, two, three = await locks(store, "one", "two", "three")
        expected = []
        for number in range(20):
            first, extensions = (one, ()) if number % 3 else (two, (("t", one),))
            made = NOON + number // 2 * SECOND
            namespace = "shop" if number % 2 else "bank"
            pin = a_pin(first, f"r{number}", namespace=namespace, created=made, extensions=extensions)
            expected.append(await store.pins.add(pin))
            await store.pins.add(a_pin(three, f"other{number}", created=made))
        expected.reverse()
        for asked in (None, "shop"):
            seen: list[PinRecord] = []
            cursor: str | None = None
            while not seen or cursor:
                found = await store.pins.page(asked, cursor, 3, lock=one)
                seen += found.items
                cursor = found.cursor
            assert seen == [pin for pin in expected if asked in (None, pin.namespace)]
        assert await store.pins.page(None, None, 3, lock=Digest.of(b"absent")) == Page([], None)

    async def test_the_holders_of_locks(self, store: MetadataStore) -> None:
        one, two, three, four = await locks(store, "one", "two", "three", "four")
        absent = Digest.of(b"absent")
        await store.pins.add(a_pin(one, "r1", extensions=(("t", two), ("u", three))))
        await store.pins.add(a_pin(two, "r2", created=NOON + SECOND))
        first, second = PinName("shop", "checkout", "r1"), PinName("shop", "checkout", "r2")
        held = {one: Holders(1, (first,)), two: Holders(2, (second, first)), four: Holders(0, ())}
        assert await store.pins.holders([one, two, four]) == held
        assert await store.pins.holders([three, absent]) == {three: Holders(1, (first,)), absent: Holders(0, ())}
        assert await store.pins.holders([]) == {}

    async def test_of_many_holders_the_newest_are_shown(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        for number in (3, 0, 4, 1, 2):
            await store.pins.add(a_pin(one, f"r{number}", created=NOON + number * SECOND))
        await store.pins.add(a_pin(two, "r5", created=NOON + 5 * SECOND, extensions=(("t", one),)))
        newest = tuple(PinName("shop", "checkout", revision) for revision in ("r5", "r4", "r3"))
        assert await store.pins.holders([one]) == {one: Holders(6, newest)}

    async def test_the_holders_of_some_namespaces(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        await store.pins.add(a_pin(one, "r1", extensions=(("t", two),)))
        await store.pins.add(a_pin(one, "r2", namespace="bank", created=NOON + SECOND))
        await store.pins.add(a_pin(two, "r3", namespace="bank", extensions=(("t", one),)))
        shop = PinName("shop", "checkout", "r1")
        bank = [PinName("bank", "checkout", revision) for revision in ("r2", "r3")]
        assert await store.pins.holders([one, two], ["shop"]) == {one: Holders(1, (shop,)), two: Holders(1, (shop,))}
        assert await store.pins.holders([one], ["bank"]) == {one: Holders(2, tuple(bank))}
        assert await store.pins.holders([one], ["bank", "shop"]) == await store.pins.holders([one])
        assert await store.pins.holders([one], ["other"]) == {one: Holders(0, ())}

    async def test_what_a_pin_says_for_a_target_class(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        covered = a_lock("one").targets[0]
        name = PinName("shop", "checkout", "r1")

        async def standing(target: str = covered, revision: str = "r1", key: str = "key") -> Standing | None:
            asked = replace(name, revision=revision)
            return await store.pins.standing(asked, False, key, target, "t1")

        assert await standing() is None
        await store.pins.add(a_pin(one, extensions=(("further", two),), stale=True))
        assert await standing() == Standing(name, one, True, None, None)
        assert await standing("further") == Standing(name, two, True, None, None)
        assert [await standing("other"), await standing(revision="r2"), await standing(key="k")] == [None] * 3

        bundle = BundleRecord(two, "further", "t1", Digest.of(b"bundle"), 1, 2, NOON, ({"code": "yanked"},))
        claims = await store.contents.claim([bundle.digest])
        assert await store.artifacts.add_bundle(bundle, claims)
        await store.workloads.see("shop", "checkout", NOON)
        assert await standing("further") == Standing(name, two, True, NOON, bundle)
        assert await standing() == Standing(name, one, True, NOON, None)

    async def test_a_revision_that_counts_refreshes(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        covered = a_lock("one").targets[0]
        unnamed = PinName("shop", "checkout", "@")

        async def revision() -> tuple[str, Digest] | None:
            found = await store.pins.standing(unnamed, True, "key", covered, "t1")
            return (found.pin.revision, found.lock) if found else None

        await store.pins.add(a_pin(one, "@0"))
        assert await revision() == ("@0", one)
        await store.workloads.refresh("shop", "checkout", NOON)
        assert await revision() is None
        await store.pins.add(a_pin(two, "@1"))
        assert await revision() == ("@1", two)

    async def test_whether_a_pin_for_a_key_holds_a_lock(self, store: MetadataStore) -> None:
        one, two, three = await locks(store, "one", "two", "three")
        await store.pins.add(a_pin(one, "r1", extensions=(("t", two),)))
        assert [await store.pins.holds(lock, "key") for lock in (one, two, three)] == [True, True, False]
        assert not await store.pins.holds(one, "another key")


class WorkloadStoreContract:
    async def test_a_workload_that_nobody_touched(self, store: MetadataStore) -> None:
        assert await store.workloads.get("shop", "checkout") == WorkloadRecord("shop", "checkout")

    async def test_refreshes_and_holds(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        held = WorkloadRecord("shop", "checkout", hold=Hold(one, NOON))
        assert await store.workloads.hold("shop", "checkout", Hold(one, NOON)) == held
        assert await store.workloads.get("shop", "checkout") == held
        refreshed = WorkloadRecord("shop", "checkout", 1, NOON + SECOND)
        assert await store.workloads.refresh("shop", "checkout", NOON + SECOND) == refreshed
        assert await store.workloads.get("shop", "checkout") == refreshed
        again = WorkloadRecord("shop", "checkout", 1, NOON + SECOND, Hold(two, NOON + 2 * SECOND))
        assert await store.workloads.hold("shop", "checkout", Hold(two, NOON + 2 * SECOND)) == again
        assert (await store.workloads.refresh("shop", "checkout", NOON + 3 * SECOND)).refreshes == 2
        assert await store.workloads.get("shop", "cart") == WorkloadRecord("shop", "cart")

    async def test_every_refresh_counts(self, store: MetadataStore, another: MetadataStore) -> None:
        calls = [opener.workloads.refresh("shop", "checkout", NOON) for opener in (store, another) for _ in range(10)]
        assert sorted(record.refreshes for record in await asyncio.gather(*calls)) == list(range(1, 21))

    async def test_many_are_seen_at_once_and_none_earlier_than_before(self, store: MetadataStore) -> None:
        many = [("shop", f"workload{number}") for number in range(1200)]
        await store.workloads.refresh("shop", "workload0", NOON - 2 * SECOND)
        await store.workloads.see("shop", "workload1", NOON + SECOND)
        await store.workloads.see_all(many, NOON)
        assert await store.workloads.unseen(NOON, 2000) == []
        assert len(await store.workloads.unseen(NOON + MICROSECOND, 2000)) == 1199
        assert (await store.workloads.get("shop", "workload0")).refreshes == 1
        await store.workloads.see_all([], NOON)

    async def test_a_lock_that_is_not_there_cannot_be_held(self, store: MetadataStore) -> None:
        with pytest.raises(StorageError):
            await store.workloads.hold("shop", "checkout", Hold(Digest.of(b"absent"), NOON))
        assert await store.workloads.get("shop", "checkout") == WorkloadRecord("shop", "checkout")
