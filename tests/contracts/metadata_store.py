"""What every metadata store keeps to. A backend's tests subclass the suite and give it its fixtures:

- `store`: an empty store
- `another`: a second opener of the same database, as another process would be
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.content import Digest
from storage.errors import StorageError
from storage.protocols import MetadataStore
from storage.records import (
    BundleRecord,
    Hold,
    Holders,
    InvalidCursor,
    LayerRecord,
    LockFilter,
    LockRecord,
    LockSummary,
    OperationRecord,
    Page,
    PinName,
    PinRecord,
    Resolution,
    Standing,
    WorkloadRecord,
)
from tests.contracts.image_store import ImageStoreContract
from tests.contracts.job_store import JobStoreContract
from tests.contracts.lease_store import LeaseStoreContract, RefusalStoreContract

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
EVERYTHING = LockFilter()
NOT_CURSORS = ["", "x", "!!!", "ä", "bm90IG91cnM", "MQ", "MSAx", "MSAw", "MSAtMQ", "0" * 5000, "MSAxIA", "ICA"]


def a_lock(name: str, created: datetime = NOON, packages: tuple[tuple[str, str], ...] = ()) -> LockRecord:
    return LockRecord(
        digest=Digest.of(name.encode()),
        created=created,
        requirements=(f"{name}>=1", "ünïcode ; python_version < '3.13'"),
        targets=("cp312-musllinux_1_2_x86_64", "cp312-manylinux_2_28_x86_64"),
        package_count=len(packages),
        content=name.encode() + b"\x00\xff",
        packages=packages,
    )


def summary(lock: LockRecord) -> LockSummary:
    return LockSummary(lock.digest, lock.created, lock.requirements, lock.targets, lock.package_count)


async def locks(store: MetadataStore, *names: str) -> list[Digest]:
    records = [a_lock(name) for name in names]
    for record in records:
        await store.locks.add(record)
    return [record.digest for record in records]


def a_pin(lock: Digest, revision: str = "r1", **fields: object) -> PinRecord:
    values: dict[str, object] = {
        "namespace": "shop",
        "workload": "checkout",
        "revision": revision,
        "key": "key",
        "lock": lock,
        "created": NOON,
    }
    return PinRecord(**{**values, **fields})  # type: ignore[arg-type] # fields of any kind, checked by what is compared


class LockStoreContract:
    async def test_a_lock_comes_back_whole(self, store: MetadataStore) -> None:
        lock = a_lock("one", packages=(("zlib-ng", "2"), ("a", "1.0+local"), ("a", "1.1")))
        await store.locks.add(lock)
        assert await store.locks.get(lock.digest) == lock

    async def test_a_large_lock_comes_back_whole(self, store: MetadataStore) -> None:
        packages = tuple((f"package-{number}", str(number)) for number in range(2000))
        lock = a_lock("large" * 200_000, packages=packages)
        await store.locks.add(lock)
        assert await store.locks.get(lock.digest) == lock

    async def test_an_empty_lock_is_one(self, store: MetadataStore) -> None:
        lock = LockRecord(Digest.of(b""), NOON, (), (), 0, b"", ())
        await store.locks.add(lock)
        assert await store.locks.get(lock.digest) == lock

    async def test_a_lock_that_is_not_there(self, store: MetadataStore) -> None:
        assert await store.locks.get(Digest.of(b"absent")) is None

    async def test_a_lock_never_changes(self, store: MetadataStore) -> None:
        lock = a_lock("one", packages=(("a", "1"),))
        await store.locks.add(lock)
        await store.locks.add(LockRecord(lock.digest, NOON + SECOND, (), (), 9, b"other", (("b", "2"),)))
        assert await store.locks.get(lock.digest) == lock

    async def test_many_writers_of_one_lock(self, store: MetadataStore, another: MetadataStore) -> None:
        lock = a_lock("one", packages=(("a", "1"), ("b", "2")))
        await asyncio.gather(*(opener.locks.add(lock) for opener in (store, another) for _ in range(10)))
        assert await another.locks.get(lock.digest) == lock

    async def test_times_are_exact_and_in_utc(self, store: MetadataStore) -> None:
        elsewhere = NOON.astimezone(timezone(timedelta(hours=-7)))
        times = [NOON + MICROSECOND, datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
        for number, time in enumerate([elsewhere, *times]):
            lock = a_lock(str(number), time)
            await store.locks.add(lock)
            found = await store.locks.get(lock.digest)
            assert found is not None
            assert found.created == time
            assert found.created.utcoffset() == timedelta(0)

    async def test_lists_locks_newest_first(self, store: MetadataStore) -> None:
        added = [a_lock(str(number), NOON + number * MICROSECOND) for number in range(5)]
        for lock in (added[2], added[0], added[4], added[1], added[3]):
            await store.locks.add(lock)
        page = await store.locks.page(EVERYTHING, None, 10)
        assert page == Page([summary(lock) for lock in reversed(added)], None)

    async def test_pages_through_locks_of_one_moment(self, store: MetadataStore) -> None:
        added = {summary(a_lock(str(number), NOON + (number % 2) * SECOND)) for number in range(250)}
        await asyncio.gather(
            *(store.locks.add(a_lock(str(number), NOON + (number % 2) * SECOND)) for number in range(250))
        )
        seen: list[LockSummary] = []
        cursor: str | None = None
        for _ in range(36):
            page = await store.locks.page(EVERYTHING, cursor, 7)
            assert len(page.items) <= 7
            seen += page.items
            cursor = page.cursor
        assert (len(seen), set(seen), cursor) == (250, added, None)
        assert [lock.created for lock in seen] == sorted((lock.created for lock in seen), reverse=True)

    async def test_a_full_last_page_has_no_cursor(self, store: MetadataStore) -> None:
        await locks(store, "one", "two")
        page = await store.locks.page(EVERYTHING, None, 2)
        assert (len(page.items), page.cursor) == (2, None)
        assert await store.locks.page(LockFilter(package="absent"), None, 2) == Page([], None)

    async def test_a_page_goes_on_though_locks_are_added(self, store: MetadataStore) -> None:
        await locks(store, "one", "two", "three")
        first = await store.locks.page(EVERYTHING, None, 2)
        await store.locks.add(a_lock("newer", NOON + SECOND))
        rest = await store.locks.page(EVERYTHING, first.cursor, 2)
        names = ("one", "two", "three")
        assert {lock.digest for lock in first.items + rest.items} == {a_lock(name).digest for name in names}

    @pytest.mark.parametrize("cursor", NOT_CURSORS)
    async def test_refuses_cursors_that_are_not_its_own(self, store: MetadataStore, cursor: str) -> None:
        with pytest.raises(InvalidCursor):
            await store.locks.page(EVERYTHING, cursor, 10)
        with pytest.raises(InvalidCursor):
            await store.pins.page(None, cursor if cursor != "MSAx" else cursor + "=", 10)

    async def test_finds_locks_by_package_and_namespace(self, store: MetadataStore) -> None:
        both = a_lock("both", NOON, (("numpy", "1"), ("pandas", "2")))
        numpy = a_lock("numpy", NOON + SECOND, (("numpy", "1"), ("numpy", "2")))
        other = a_lock("other", NOON + 2 * SECOND, (("flask", "3"),))
        for lock in (both, numpy, other):
            await store.locks.add(lock)
        shop = await store.pins.add(a_pin(both.digest))
        await store.pins.extend(shop, "cp313-musllinux_1_2_x86_64", other.digest)
        await store.pins.add(a_pin(numpy.digest, namespace="bank"))
        await store.pins.add(a_pin(numpy.digest, "r2", namespace="bank"))

        async def found(where: LockFilter) -> list[Digest]:
            return [lock.digest for lock in (await store.locks.page(where, None, 10)).items]

        assert await found(LockFilter(package="numpy")) == [numpy.digest, both.digest]
        assert await found(LockFilter(package="pandas")) == [both.digest]
        assert await found(LockFilter(package="nump")) == []
        assert await found(LockFilter(namespace="shop")) == [other.digest, both.digest]
        assert await found(LockFilter(namespace="bank")) == [numpy.digest]
        assert await found(LockFilter(package="numpy", namespace="shop")) == [both.digest]
        page = await store.locks.page(LockFilter(package="numpy"), None, 1)
        rest = await store.locks.page(LockFilter(package="numpy"), page.cursor, 1)
        assert [lock.digest for lock in page.items + rest.items] == [numpy.digest, both.digest]

    async def test_resolutions_are_newest_first_and_renewed(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        await store.locks.add_resolution(Resolution("key", one, ("t1", "t2"), NOON))
        await store.locks.add_resolution(Resolution("key", two, (), NOON + SECOND))
        await store.locks.add_resolution(Resolution("other", one, (), NOON))
        assert [found.lock for found in await store.locks.resolutions("key")] == [two, one]
        await store.locks.add_resolution(Resolution("key", one, ("t1", "t2"), NOON + 2 * SECOND))
        assert await store.locks.resolutions("key") == [
            Resolution("key", one, ("t1", "t2"), NOON + 2 * SECOND),
            Resolution("key", two, (), NOON + SECOND),
        ]
        await store.locks.add_resolution(Resolution("key", one, ("t1", "t2"), NOON))  # a late writer
        assert [found.at for found in await store.locks.resolutions("key")] == [NOON + 2 * SECOND, NOON + SECOND]
        assert await store.locks.keys_of(one) == ["key", "other"]
        assert await store.locks.resolutions("absent") == []
        assert await store.locks.keys_of(Digest.of(b"absent")) == []

    async def test_at_most_a_hundred_resolutions_the_newest(self, store: MetadataStore) -> None:
        for number, lock in enumerate(await locks(store, *(str(number) for number in range(105)))):
            await store.locks.add_resolution(Resolution("key", lock, (), NOON + number * SECOND))
        found = await store.locks.resolutions("key")
        assert [resolution.at for resolution in found] == [NOON + number * SECOND for number in range(104, 4, -1)]

    async def test_a_resolution_to_a_lock_that_is_not_there(self, store: MetadataStore) -> None:
        with pytest.raises(StorageError):
            await store.locks.add_resolution(Resolution("key", Digest.of(b"absent"), (), NOON))
        assert await store.locks.resolutions("key") == []


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


class ArtifactStoreContract:
    def layer(self, toolchain: str = "t1", size: int = 5 * 2**30) -> LayerRecord:
        return LayerRecord(
            wheel=Digest.of(b"wheel"),
            python="3.12",
            toolchain=toolchain,
            digest=Digest.of(toolchain.encode()),
            size=size,
            diff_id=Digest.of(b"tar"),
            tar_size=7 * 2**30,
            unpacked_size=6 * 2**30,
            listing=Digest.of(b"listing"),
            has_pth=True,
            has_bytecode=False,
        )

    async def test_layers(self, store: MetadataStore) -> None:
        layer = self.layer()
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") is None
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) is None
        claims = await store.contents.claim([layer.digest, self.layer("t2").digest, layer.listing])
        assert await store.artifacts.add_layer(layer, claims)
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") == layer
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) == layer
        assert await store.artifacts.layer(layer.wheel, "3.13", "t1") is None
        assert await store.artifacts.layer(layer.wheel, "3.12", "t2") is None
        assert await store.artifacts.add_layer(self.layer(size=9), claims)
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") == self.layer(size=9)
        assert await store.artifacts.add_layer(self.layer("t2"), claims)
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) in (self.layer(size=9), self.layer("t2"))

    async def test_bundles(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "one")
        warnings = ({"code": "yanked", "message": "ünïcode"}, {"code": "path-conflict", "message": "m", "package": "a"})
        bundle = BundleRecord(lock, "cp312-x", "t1", Digest.of(b"manifest"), 2**40, 2**41, NOON, warnings)
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") is None
        assert await store.artifacts.add_bundle(bundle, await store.contents.claim([bundle.digest]))
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") == bundle
        assert await store.artifacts.bundle(lock, "cp313-x", "t1") is None
        other = BundleRecord(lock, "cp312-x", "t1", Digest.of(b"other"), 1, 2, NOON)
        claims = await store.contents.claim([other.digest])
        assert all(await asyncio.gather(*(store.artifacts.add_bundle(other, claims) for _ in range(5))))
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") == other

    async def test_a_bundle_may_come_before_its_lock(self, store: MetadataStore) -> None:
        absent = Digest.of(b"absent")
        bundle = BundleRecord(absent, "t", "c", absent, 1, 1, NOON)
        assert await store.artifacts.add_bundle(bundle, await store.contents.claim([absent]))
        assert await store.artifacts.bundle(absent, "t", "c") == bundle


class OperationStoreContract:
    async def test_an_operation_runs_and_ends(self, store: MetadataStore) -> None:
        running = OperationRecord("id", "resolve", "running", NOON, NOON, {"done": 1, "of": [2, None, "ünïcode"]})
        assert await store.operations.get("id") is None
        await store.operations.put(running)
        assert await store.operations.get("id") == running
        succeeded = OperationRecord("id", "resolve", "succeeded", NOON, NOON + SECOND, {}, {"lock": {"a": 1.5}})
        await store.operations.put(succeeded)
        assert await store.operations.get("id") == succeeded
        failed = OperationRecord("id", "resolve", "failed", NOON, NOON + SECOND, {}, None, {"status": 422})
        await store.operations.put(failed)
        assert await store.operations.get("id") == failed

    async def test_old_operations_are_forgotten(self, store: MetadataStore) -> None:
        for number in range(5):
            await store.operations.put(OperationRecord(str(number), "k", "running", NOON, NOON + number * SECOND))
        assert await store.operations.delete_before(NOON + 3 * SECOND) == 3
        assert await store.operations.delete_before(NOON + 3 * SECOND) == 0
        assert [await store.operations.get(str(number)) is None for number in range(5)] == [True] * 3 + [False] * 2


class MetadataStoreContract(
    LockStoreContract,
    PinStoreContract,
    WorkloadStoreContract,
    ArtifactStoreContract,
    ImageStoreContract,
    OperationStoreContract,
    LeaseStoreContract,
    RefusalStoreContract,
    JobStoreContract,
):
    async def test_answers_a_ping(self, store: MetadataStore) -> None:
        await store.ping()

    async def test_readers_and_writers_of_two_openers(self, store: MetadataStore, another: MetadataStore) -> None:
        [lock] = await locks(store, "one")

        async def use(opener: MetadataStore, number: int) -> None:
            pin = await opener.pins.add(a_pin(lock, f"r{number}"))
            assert await opener.pins.get("shop", "checkout", f"r{number}", "key") == pin
            await opener.locks.add_resolution(Resolution(f"key{number}", lock, (), NOON))
            await opener.operations.put(OperationRecord(str(number), "k", "running", NOON, NOON))
            assert await opener.operations.get(str(number)) is not None

        await asyncio.gather(*(use(opener, number) for opener in (store, another) for number in range(60)))
        assert len((await store.pins.page(None, None, 100)).items) == 60
        assert len(await another.locks.keys_of(lock)) == 60

    async def test_cancelled_callers_block_nobody(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "one")
        for steps in range(0, 60, 2):
            writing = asyncio.create_task(store.pins.add(a_pin(lock, f"r{steps}", extensions=(("t", lock),))))
            reading = asyncio.create_task(store.pins.page(None, None, 10))
            for _ in range(steps):
                await asyncio.sleep(0)
            writing.cancel()
            reading.cancel()
            await asyncio.wait([writing, reading])
        pin = a_pin(lock, "last", extensions=(("t", lock),))
        assert await store.pins.add(pin) == pin
        page = await store.pins.page(None, None, 100)
        assert all(found.extensions == (("t", lock),) for found in page.items)  # whole or not at all
