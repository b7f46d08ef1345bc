"""What every metadata store keeps to in what OCI clients ask for. Fixtures as in `metadata_store`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BundleRecord, Keep, LockRecord, PinRecord

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NOTHING = Keep(revisions=0, used_after=NOON + timedelta(days=1))


def a(name: str) -> Digest:
    return Digest.of(name.encode())


async def a_pin(
    store: MetadataStore,
    lock: str,
    revision: str,
    key: str,
    at: datetime,
    *,
    namespace: str = "shop",
    workload: str = "checkout",
) -> PinRecord:
    record = LockRecord(a(lock), NOON, (), ("cp312-x",), 0, lock.encode(), ())
    await store.locks.add(record)
    return await store.pins.add(PinRecord(namespace, workload, revision, key, record.digest, at))


async def a_bundle(store: MetadataStore, lock: str, name: str, target: str = "t") -> BundleRecord:
    record = BundleRecord(a(lock), target, "toolchain", a(name), 1, 1, NOON)
    assert await store.artifacts.add_bundle(record, await store.contents.claim([a(name)]))
    return record


class ImageStoreContract:
    async def test_a_bundle_knows_its_locks(self, store: MetadataStore) -> None:
        assert await store.images.locks_of(a("bundle")) == []
        for lock in ("one", "two"):
            await a_bundle(store, lock, "bundle")
            await a_bundle(store, lock, "bundle", target="another")
        await a_bundle(store, "three", "another bundle")
        assert await store.images.locks_of(a("bundle")) == sorted([a("one"), a("two")])

    async def test_the_newest_pin_of_each_key(self, store: MetadataStore) -> None:
        assert await store.images.newest_pins("shop", "checkout") == []
        await a_pin(store, "one", "r1", "k1", NOON)
        newer = await a_pin(store, "two", "r2", "k1", NOON + SECOND)
        other = await a_pin(store, "one", "r1", "k2", NOON + 2 * SECOND)
        await a_pin(store, "one", "r1", "k1", NOON + 3 * SECOND, workload="another")
        await a_pin(store, "one", "r1", "k1", NOON + 3 * SECOND, namespace="another")
        assert await store.images.newest_pins("shop", "checkout") == [other, newer]
        extended = await store.pins.extend(newer, "cp312-y", a("one"))
        assert await store.images.newest_pins("shop", "checkout") == [other, extended]

    async def test_of_pins_of_one_moment_the_last_written_is_the_newest(self, store: MetadataStore) -> None:
        await a_pin(store, "one", "r1", "k1", NOON)
        second = await a_pin(store, "two", "r2", "k1", NOON)
        assert await store.images.newest_pins("shop", "checkout") == [second]

    async def test_so_many_keys_at_the_most(self, store: MetadataStore) -> None:
        for number in range(60):
            await a_pin(store, "one", "r1", f"k{number}", NOON + number * SECOND)
        found = await store.images.newest_pins("shop", "checkout")
        assert [pin.key for pin in found] == [f"k{number}" for number in range(59, 9, -1)]

    async def test_what_is_attached_is_needed_as_long_as_the_bundle(self, store: MetadataStore) -> None:
        bundle = await a_bundle(store, "one", "bundle")
        claims = await store.contents.claim([a("index"), a("lock")])
        assert not await store.contents.is_needed(a("index"))
        assert await store.images.attach(a("bundle"), claims)
        assert await store.images.attach(a("bundle"), claims), "again is no error"
        assert await store.contents.is_needed(a("index"))
        used = Keep(revisions=0, used_after=NOON - SECOND)
        assert await store.retention.held(used) == {a("bundle"), a("index"), a("lock")}
        assert await store.artifacts.bundle(a("one"), "t", "toolchain") == bundle
        assert await store.retention.held(NOTHING) == set()

    async def test_nothing_is_attached_to_what_is_gone(self, store: MetadataStore) -> None:
        claims = await store.contents.claim([a("index")])
        assert not await store.images.attach(a("bundle"), claims)
        await a_bundle(store, "one", "bundle")
        stale = {digest: incarnation + 1 for digest, incarnation in claims.items()}
        assert not await store.images.attach(a("bundle"), stale)
        assert not await store.contents.is_needed(a("index"))
        assert await store.images.attach(a("bundle"), claims)

    async def test_a_lock_of_another_bundle_is_none_of_its_own(self, store: MetadataStore) -> None:
        record = await a_bundle(store, "one", "bundle")
        await store.artifacts.add_bundle(
            replace(record, digest=a("rebuilt")), await store.contents.claim([a("rebuilt")])
        )
        assert await store.images.locks_of(a("bundle")) == []
        assert await store.images.locks_of(a("rebuilt")) == [a("one")]
