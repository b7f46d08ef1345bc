"""What every store of leases and refusals keeps to; part of the metadata store's suite."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from storage.content import Digest
from storage.errors import LeaseLost
from storage.protocols import MetadataStore
from storage.records import LockRecord, Resolution

LONG = 60.0
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class LeaseStoreContract:
    async def test_of_twenty_who_want_a_lease_one_has_it(self, store: MetadataStore, another: MetadataStore) -> None:
        openers = (store, another)
        taken = await asyncio.gather(*(openers[n % 2].leases.acquire("work", f"h{n}", LONG) for n in range(20)))
        (lease,) = [lease for lease in taken if lease is not None]
        assert not lease.takeover
        assert await store.leases.acquire("other work", "h", LONG) is not None
        await another.leases.release(lease)
        assert await store.leases.acquire("work", "next", LONG) is not None

    async def test_a_holder_that_is_gone_is_replaced_and_can_do_no_more(self, store: MetadataStore) -> None:
        gone = await store.leases.acquire("work", "first", 0.2)
        assert gone is not None
        assert await store.leases.acquire("work", "second", LONG) is None
        await asyncio.sleep(0.3)
        heir = await store.leases.acquire("work", "second", LONG)
        assert heir is not None
        assert heir.takeover
        assert heir.token > gone.token
        assert not await store.leases.renew(gone, LONG)
        await store.leases.release(gone)
        assert await store.leases.renew(heir, LONG), "who comes back late cannot take the lease from its heir"

    async def test_a_heartbeat_keeps_a_lease(self, store: MetadataStore) -> None:
        lease = await store.leases.acquire("work", "first", 0.5)
        assert lease is not None
        for _ in range(4):
            await asyncio.sleep(0.2)
            assert await store.leases.renew(lease, 0.5)
        assert await store.leases.acquire("work", "second", LONG) is None

    async def test_a_lease_that_ran_out_cannot_be_renewed(self, store: MetadataStore) -> None:
        lease = await store.leases.acquire("work", "first", 0.1)
        assert lease is not None
        await asyncio.sleep(0.2)
        assert not await store.leases.renew(lease, LONG)

    async def test_who_lost_its_lease_cannot_publish(self, store: MetadataStore) -> None:
        digest = Digest.of(b"lock")
        await store.locks.add(LockRecord(digest, NOON, (), (), 0, b"lock", ()))
        resolution = Resolution("key", digest, ("t",), NOON)
        gone = await store.leases.acquire("work", "first", 0.1)
        assert gone is not None
        await asyncio.sleep(0.2)
        with pytest.raises(LeaseLost):
            await store.locks.add_resolution(resolution, gone)
        heir = await store.leases.acquire("work", "second", LONG)
        with pytest.raises(LeaseLost):
            await store.locks.add_resolution(resolution, gone)
        assert await store.locks.resolutions("key") == []
        await store.locks.add_resolution(resolution, heir)
        assert await store.locks.resolutions("key") == [resolution]


class RefusalStoreContract:
    async def test_a_refusal_is_remembered_until_its_time(self, store: MetadataStore, another: MetadataStore) -> None:
        assert await store.refusals.get("question", NOON) is None
        await store.refusals.put("question", {"outcome": "no-solution", "hints": ["a"]}, NOON, NOON + 5 * SECOND)
        assert await another.refusals.get("question", NOON + 4 * SECOND) == {"outcome": "no-solution", "hints": ["a"]}
        assert await another.refusals.get("question", NOON + 5 * SECOND) is None
        await another.refusals.put("question", {"outcome": "other"}, NOON + SECOND, NOON + 9 * SECOND)
        assert await store.refusals.get("question", NOON + 6 * SECOND) == {"outcome": "other"}
