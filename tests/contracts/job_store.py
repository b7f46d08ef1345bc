"""What every store of jobs keeps to; part of the metadata store's suite."""

import asyncio
from datetime import UTC, datetime, timedelta

from storage.protocols import MetadataStore
from storage.records import JobRecord

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MOST = 100


def a_job(name: str, namespace: str = "shop", created: datetime = NOON) -> JobRecord:
    return JobRecord(name, namespace, "t", {"requirements": [name]}, created)


class JobStoreContract:
    async def test_a_job_waits_once_however_many_ask_until_it_is_done(
        self, store: MetadataStore, another: MetadataStore
    ) -> None:
        openers = (store, another)
        assert all(await asyncio.gather(*(openers[n % 2].jobs.put(a_job("one"), MOST) for n in range(10))))
        assert await another.jobs.waiting(10) == [a_job("one")]
        assert await another.jobs.get("one") == a_job("one")
        await another.jobs.done("one")
        assert await store.jobs.get("one") is None
        assert await store.jobs.waiting(10) == []

    async def test_namespaces_take_turns(self, store: MetadataStore) -> None:
        for number in range(4):
            await store.jobs.put(a_job(f"noisy-{number}", "noisy", NOON + number * SECOND), MOST)
        for number in range(2):
            await store.jobs.put(a_job(f"quiet-{number}", "quiet", NOON + (10 + number) * SECOND), MOST)
        order = [job.id for job in await store.jobs.waiting(5)]
        assert order == ["noisy-0", "quiet-0", "noisy-1", "quiet-1", "noisy-2"]

    async def test_the_queue_has_an_end(self, store: MetadataStore) -> None:
        assert await store.jobs.put(a_job("one"), 2)
        assert await store.jobs.put(a_job("two"), 2)
        assert not await store.jobs.put(a_job("three"), 2)
        assert await store.jobs.put(a_job("two"), 2), "it waits already"
        await store.jobs.done("one")
        assert await store.jobs.put(a_job("three"), 2)

    async def test_a_failure_is_told_and_what_is_asked_again_later_waits_anew(self, store: MetadataStore) -> None:
        await store.jobs.put(a_job("one"), MOST)
        await store.jobs.fail("one", {"status": 502}, NOON + 5 * SECOND, NOON)
        failed = await store.jobs.get("one")
        assert failed is not None
        assert (failed.problem, failed.failed) == ({"status": 502}, NOON + 5 * SECOND)
        assert await store.jobs.waiting(10) == []
        await store.jobs.put(a_job("one", created=NOON + 4 * SECOND), MOST)
        assert await store.jobs.get("one") == failed, "who asked before it failed is told that it did"
        await store.jobs.put(a_job("one", created=NOON + 6 * SECOND), MOST)
        assert await store.jobs.waiting(10) == [a_job("one", created=NOON + 6 * SECOND)]

    async def test_old_failures_are_forgotten(self, store: MetadataStore) -> None:
        for name in ("old", "new", "waiting"):
            await store.jobs.put(a_job(name), MOST)
        await store.jobs.fail("old", {}, NOON + SECOND, NOON)
        await store.jobs.fail("new", {}, NOON + 9 * SECOND, NOON + 5 * SECOND)
        assert await store.jobs.get("old") is None
        assert await store.jobs.get("new") is not None
        assert await store.jobs.get("waiting") == a_job("waiting")
