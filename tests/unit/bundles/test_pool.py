"""Whose job a worker takes up next."""

import asyncio

import pytest

from resolver.bundles.pool import _Turns

MEBIBYTE = 1 << 20


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def order(sizes: list[int], *, give_up: int | None = None) -> list[int]:
    """The sizes in the order in which those who came in this one, while the only turn was taken, are let in."""
    turns, entered = _Turns(1), list[int]()

    async def work(size: int) -> None:
        async with turns.turn(size):
            entered.append(size)
            await asyncio.sleep(0)

    async with turns.turn(0):
        tasks = []
        for size in sizes:
            tasks.append(asyncio.create_task(work(size)))
            await settle()
        if give_up is not None:
            tasks[give_up].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with turns.turn(0):  # given back by all
        return entered


async def test_large_jobs_go_before_those_that_came_a_little_sooner() -> None:
    assert await order([0, MEBIBYTE, 30 * MEBIBYTE, 0]) == [30 * MEBIBYTE, MEBIBYTE, 0, 0]


async def test_size_has_its_limit_so_that_nobody_is_passed_over_for_ever() -> None:
    assert await order([1 << 30, 1 << 40]) == [1 << 30, 1 << 40]


@pytest.mark.parametrize("who", [0, 1])
async def test_who_gives_up_waiting_takes_no_turn(who: int) -> None:
    assert len(await order([1, 2, 3], give_up=who)) == 2


async def test_a_turn_given_at_the_moment_of_giving_up_is_passed_on() -> None:
    turns = _Turns(1)
    first = turns.turn(0)
    await first.__aenter__()
    waiting = asyncio.create_task(turns.turn(0).__aenter__())
    await settle()
    await first.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(5), turns.turn(0):
        pass
