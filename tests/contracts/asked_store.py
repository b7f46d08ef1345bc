"""What every store of "asked for lately" keeps to. A backend's tests subclass the suite and give it its fixtures:

- `store`: an empty metadata store
- `another`: a second opener of the same database, as another process would be
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from storage.protocols import MetadataStore
from storage.records import AskedRecord

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
REQUEST = {"requirements": ["requests>=2", "ünïcode ; python_version < '3.13'"], "namespace": None, "prereleases": True}


def asked(key: str, times: int = 1, last: datetime = NOON, target: str = "cp312-x") -> AskedRecord:
    return AskedRecord(key, target, {**REQUEST, "key": key}, times, last)


class AskedStoreContract:
    async def test_nothing_was_asked_for(self, store: MetadataStore) -> None:
        await store.asked.add([])
        assert await store.asked.most(NOON, 10) == []

    async def test_what_was_asked_for_comes_back_whole(self, store: MetadataStore) -> None:
        await store.asked.add([asked("a")])
        assert await store.asked.most(NOON, 10) == [asked("a")]

    async def test_times_add_up_and_the_latest_stands(self, store: MetadataStore) -> None:
        await store.asked.add([asked("a", 2)])
        await store.asked.add([asked("a", 3, NOON + DAY), asked("b", 4)])
        await store.asked.add([asked("a", 5, NOON - DAY)])
        assert await store.asked.most(NOON - DAY, 10) == [asked("a", 10, NOON + DAY), asked("b", 4)]

    async def test_target_classes_are_counted_apart(self, store: MetadataStore) -> None:
        await store.asked.add([asked("a", 1, target="cp312-x"), asked("a", 2, target="cp312-y")])
        found = await store.asked.most(NOON, 10)
        assert [(record.target, record.times) for record in found] == [("cp312-y", 2), ("cp312-x", 1)]

    async def test_the_most_asked_come_first_then_the_latest(self, store: MetadataStore) -> None:
        records = [asked("few", 1, NOON + 2 * DAY), asked("many", 9), asked("newer", 5, NOON + DAY), asked("older", 5)]
        await store.asked.add(records)
        order = ["many", "newer", "older", "few"]
        assert [record.key for record in await store.asked.most(NOON, 10)] == order
        assert [record.key for record in await store.asked.most(NOON, 2)] == order[:2]
        assert [record.key for record in await store.asked.most(NOON + DAY, 10)] == ["newer", "few"]

    async def test_what_nobody_asked_for_since_is_forgotten(self, store: MetadataStore) -> None:
        await store.asked.add([asked(str(number), last=NOON + number * DAY) for number in range(5)])
        assert await store.asked.delete_before(NOON + 3 * DAY) == 3
        assert await store.asked.delete_before(NOON + 3 * DAY) == 0
        assert {record.key for record in await store.asked.most(NOON, 10)} == {"3", "4"}

    async def test_writers_at_once_lose_no_count(self, store: MetadataStore, another: MetadataStore) -> None:
        batch = [asked(f"key{number}") for number in range(20)]
        orders = [batch, [*reversed(batch)]] * 8
        openers = [store, another, another, store] * 4
        await asyncio.gather(*(opener.asked.add(order) for opener, order in zip(openers, orders, strict=True)))
        assert await store.asked.most(NOON, 100) == sorted(
            (replace(record, times=16) for record in batch), key=lambda record: record.key
        )
