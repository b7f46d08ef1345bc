"""What is written of a pinned answer: when at once, when in a while, when not at all."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from resolver.service.uses import Uses
from storage.errors import StorageUnavailable
from storage.metadata.store import SqlMetadataStore

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WHO = ("shop", "checkout")


class Bench:
    def __init__(self, store: SqlMetadataStore) -> None:
        self.store = store
        self.time = NOON
        self.restart()

    def restart(self) -> None:
        self.uses = Uses(
            self.store.artifacts,
            self.store.workloads,
            every=15 * MINUTE,
            forgotten=1000 * MINUTE,
            clock=lambda: self.time,
        )

    async def seen_since(self, time: datetime) -> bool:
        return await self.store.workloads.unseen(time, 10) == []


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    await store.workloads.see(*WHO, NOON)
    bench = Bench(store)
    yield bench
    await bench.uses.close()
    await store.close()


async def test_one_seen_lately_by_any_replica_is_not_written(bench: Bench) -> None:
    bench.time = NOON + 14 * MINUTE
    assert bench.uses.seen(*WHO, NOON)
    await bench.uses.close()
    assert not await bench.seen_since(NOON + MINUTE)


async def test_one_seen_a_while_ago_is_written_at_the_close_at_the_latest(bench: Bench) -> None:
    bench.time = NOON + 400 * MINUTE
    assert bench.uses.seen(*WHO, NOON)
    assert not await bench.seen_since(NOON + MINUTE), "nobody waited for that"
    await bench.uses.close()
    assert await bench.seen_since(bench.time)


@pytest.mark.parametrize("last", [None, NOON])
async def test_one_that_may_soon_be_forgotten_is_to_be_written_first(bench: Bench, last: datetime | None) -> None:
    bench.time = NOON + 500 * MINUTE
    assert not bench.uses.seen(*WHO, last)
    await bench.uses.see(*WHO)
    assert await bench.seen_since(bench.time)
    assert bench.uses.seen(*WHO, last), "it was just written"


async def test_more_than_can_gather_are_to_be_written_first(bench: Bench) -> None:
    bench.time = NOON + 400 * MINUTE
    told = [bench.uses.seen("shop", f"workload{number}", NOON) for number in range(10_001)]
    assert told == [True] * 10_000 + [False]


async def test_what_could_not_be_written_is_kept_for_the_next_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StorageUnavailable("away")

    bench.time = NOON + 400 * MINUTE
    assert bench.uses.seen(*WHO, NOON)
    with monkeypatch.context() as broken:
        broken.setattr(bench.store.workloads, "see_all", away)
        await bench.uses.close()
    assert not await bench.seen_since(NOON + MINUTE)
    await bench.uses._write()
    assert await bench.seen_since(bench.time)
