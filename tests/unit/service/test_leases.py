"""One replica at a time, on a real database: two openers stand for two replicas."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from resolver.domain.errors import TimedOut
from resolver.service.leases import Leased
from storage.metadata.store import SqlMetadataStore
from storage.records import Lease

SECONDS = 0.6


@pytest.fixture
async def openers(tmp_path: Path) -> AsyncIterator[tuple[SqlMetadataStore, SqlMetadataStore]]:
    url = f"sqlite:///{tmp_path}/lockstep.db"
    one, two = await SqlMetadataStore.open(url), await SqlMetadataStore.open(url)
    yield one, two
    await one.close()
    await two.close()


class Work:
    """A piece of work whose result both replicas can see."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.result: str | None = None
        self.runs = 0
        self.ended: list[str] = []

    async def look(self) -> str | None:
        return self.result

    async def do(self, lease: Lease | None) -> str:
        self.runs += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.result = "made"
        return self.result


async def test_two_replicas_do_it_once(openers: tuple[SqlMetadataStore, SqlMetadataStore]) -> None:
    work = Work(seconds=3 * SECONDS)
    replicas = [Leased(store.leases, seconds=SECONDS) for store in openers]
    answers = await asyncio.gather(*(replicas[n % 2].once("work", work.look, work.do) for n in range(8)))
    assert answers == ["made"] * 8
    assert work.runs == 1, "the heartbeat kept the lease for longer than it lasts by itself"


async def test_a_replica_that_dies_midway_is_replaced(openers: tuple[SqlMetadataStore, SqlMetadataStore]) -> None:
    died = await openers[0].leases.acquire("work", "a replica that was killed", SECONDS)
    assert died is not None
    takeovers: list[None] = []
    heir = Leased(openers[1].leases, seconds=SECONDS, taken_over=lambda: takeovers.append(None))
    work = Work()
    assert await heir.once("work", work.look, work.do) == "made"
    assert len(takeovers) == 1


async def test_a_failure_gives_the_lease_back(openers: tuple[SqlMetadataStore, SqlMetadataStore]) -> None:
    async def fail(_: Lease | None) -> str:
        raise ConnectionError("no")

    work = Work()
    with pytest.raises(ConnectionError):
        await Leased(openers[0].leases, seconds=60).once("work", work.look, fail)
    assert await Leased(openers[1].leases, seconds=60).once("work", work.look, work.do) == "made"


async def test_cancelling_gives_the_lease_back(openers: tuple[SqlMetadataStore, SqlMetadataStore]) -> None:
    slow, work = Work(seconds=60), Work()
    leader = asyncio.create_task(Leased(openers[0].leases, seconds=60).once("work", slow.look, slow.do))
    while not slow.runs:
        await asyncio.sleep(0.01)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert await Leased(openers[1].leases, seconds=60).once("work", work.look, work.do) == "made"


async def test_work_whose_lease_is_lost_is_ended_and_looked_for(
    openers: tuple[SqlMetadataStore, SqlMetadataStore],
) -> None:
    work = Work(seconds=60)
    leader = asyncio.create_task(Leased(openers[0].leases, seconds=SECONDS).once("work", work.look, work.do))
    while not work.runs:
        await asyncio.sleep(0.01)
    # As after a long pause of the leader: its lease ran out, another took it, and made the result.
    async with openers[1]._database.write() as connection:
        await connection.exec_driver_sql("UPDATE leases SET holder = 'another', token = token + 1")
    work.result = "made by another"
    assert await leader == "made by another"
    assert work.ended == ["cancelled"]


async def test_waiting_has_an_end(openers: tuple[SqlMetadataStore, SqlMetadataStore]) -> None:
    assert await openers[0].leases.acquire("work", "another", 60) is not None
    work = Work()
    with pytest.raises(TimedOut):
        await Leased(openers[1].leases, seconds=60, patience=0.5).once("work", work.look, work.do)
    assert work.runs == 0
