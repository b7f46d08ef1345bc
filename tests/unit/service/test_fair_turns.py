"""Who gets a turn, and when."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from resolver.domain.errors import Busy
from resolver.service.fair_turns import FairTurns


class Bench:
    """Notes who is let in, and keeps each in until told."""

    def __init__(self, turns: FairTurns) -> None:
        self.turns = turns
        self.entered: list[str] = []
        self.inside = 0
        self.most = 0
        self.go = asyncio.Event()

    async def work(self, namespace: str, name: str) -> None:
        async with self.turns.turn(namespace):
            self.entered.append(name)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.go.wait()
            await asyncio.sleep(0)
            self.inside -= 1


async def settled(*tasks: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    """Started, and as far as they get."""
    started = [asyncio.create_task(task) for task in tasks]
    for _ in range(10):
        await asyncio.sleep(0)
    return started


async def test_namespaces_take_turns_whoever_came_first() -> None:
    bench = Bench(FairTurns(parallel=1, queue=100))
    names = ["noisy-0", *(f"noisy-{n}" for n in range(1, 6)), "quiet-0", "other-0", "quiet-1"]
    tasks = await settled(*(bench.work(name.partition("-")[0], name) for name in names))
    bench.go.set()
    await asyncio.gather(*tasks)
    assert bench.entered[:6] == ["noisy-0", "noisy-1", "quiet-0", "other-0", "noisy-2", "quiet-1"]
    assert sorted(bench.entered) == sorted(names)


async def test_no_more_than_are_allowed_at_once() -> None:
    bench = Bench(FairTurns(parallel=3, queue=100))
    bench.go.set()
    await asyncio.gather(*(bench.work(f"n{n % 4}", str(n)) for n in range(40)))
    assert bench.most == 3


async def test_one_alone_may_fill_the_queue_and_more_are_told_at_once() -> None:
    bench = Bench(FairTurns(parallel=1, queue=4))
    tasks = await settled(*(bench.work("proxy", str(n)) for n in range(5)))
    with pytest.raises(Busy):
        await bench.work("proxy", "one too many")
    bench.go.set()
    await asyncio.gather(*tasks)
    assert bench.entered == ["0", "1", "2", "3", "4"]


async def test_a_full_queue_has_room_for_who_has_less_in_it() -> None:
    bench = Bench(FairTurns(parallel=1, queue=4))
    tasks = await settled(*(bench.work("noisy", str(n)) for n in range(5)))
    tasks += await settled(*(bench.work(name, name) for name in ("a", "b", "c")))
    with pytest.raises(Busy):
        await bench.work("d", "one too many of all")
    assert bench.turns.waiting == 4
    bench.go.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ended[2:5]] == [Busy, Busy, Busy], "the latest of the noisy ones gave way"
    assert bench.entered == ["0", "1", "a", "b", "c"]
    assert (bench.turns.taken, bench.turns.waiting) == (0, 0)


async def test_who_is_cancelled_as_it_gives_way_takes_no_turn_of_others() -> None:
    bench = Bench(FairTurns(parallel=1, queue=2))
    tasks = await settled(*(bench.work("noisy", str(n)) for n in range(3)))
    late = asyncio.create_task(bench.work("quiet", "quiet"))
    await asyncio.sleep(0)
    tasks[2].cancel()
    bench.go.set()
    await asyncio.gather(*tasks, late, return_exceptions=True)
    assert (bench.most, bench.turns.taken, bench.turns.waiting) == (1, 0, 0)
    assert "quiet" in bench.entered


async def test_who_gives_up_waiting_takes_no_turn_with_him() -> None:
    bench = Bench(FairTurns(parallel=1, queue=10))
    first, second, third = await settled(*(bench.work(name, name) for name in ("a", "b", "c")))
    second.cancel()
    bench.go.set()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert bench.entered == ["a", "c"]
    await asyncio.wait_for(bench.work("d", "d"), 5)


async def test_who_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    bench = Bench(FairTurns(parallel=1, queue=10))
    first, second, third = await settled(*(bench.work(name, name) for name in ("a", "b", "c")))
    bench.go.set()
    while not first.done():
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert "c" in bench.entered


async def test_nobody_waits_for_longer_than_is_set_and_who_leaves_takes_no_place() -> None:
    turns = FairTurns(parallel=1, queue=2, patience=0.01)
    async with turns.turn("first"):
        for _ in range(5):  # more than the queue has room for, were they still in it
            with pytest.raises(Busy):
                async with turns.turn("late"):
                    raise AssertionError("it has no turn")
        assert (turns.taken, turns.waiting) == (1, 0)
    async with turns.turn("late"):
        assert turns.taken == 1
    assert turns.taken == 0
