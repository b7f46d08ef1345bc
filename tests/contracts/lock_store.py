"""What every store of locks, and of what they answered, keeps to (storage.protocols.LockStore)."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.content import Digest
from storage.errors import StorageError
from storage.protocols import MetadataStore
from storage.records import (
    InvalidCursor,
    LockFilter,
    LockRecord,
    LockSummary,
    Page,
    Resolution,
)
from tests.contracts.samples import EVERYTHING, MICROSECOND, NOON, NOT_CURSORS, SECOND, a_lock, a_pin, locks, summary


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
