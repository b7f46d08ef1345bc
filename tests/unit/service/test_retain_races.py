"""One request and one collection, each stopped, or killed, before each of its calls to a store in turn."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from resolver.service import retain
from storage.metadata import database
from storage.metadata.store import SqlMetadataStore
from tests.unit.service.parts import lock_of
from tests.unit.service.replica import Inline, Replica
from tests.unit.service.retain_world import LOCKS, RULES, World

LOCK = LOCKS[3]
TO_THE_END = 10_000
Story = Callable[[World, int], Coroutine[Any, Any, bool]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "lockstep.db"
    database.migrate(database.parse(f"sqlite:///{path}"))
    return path


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retain, "_REMOVAL", 3600.0)


@pytest.fixture
def at_every_call(template: Path, tmp_path: Path) -> Iterator[Callable[[Story], int]]:
    """Tells the story with 0, 1, 2… calls until it says that there were no more; how many there were."""

    async def one(story: Story, calls: int) -> bool:
        shutil.copy(template, tmp_path / "lockstep.db")
        world = World(SqlMetadataStore(database.Database.at(database.parse(f"sqlite:///{tmp_path}/lockstep.db"))))
        try:
            await world.set_up()
            more = await story(world, calls)
            await world.quiet()
            await world.check_references()
            assert world.in_use() <= set(await world.records()), "what was given out is gone"
            world.time += RULES.used
            for _ in range(2):
                await world.collect_whole()
                world.time += RULES.grace
            await world.collect_whole()
            await world.check_only_held_is_left()
            assert [blob async for blob in world.blobs.all()] == [], "garbage is left"
        finally:
            await world.tear_down()
        return more

    def all_of(story: Story) -> int:
        for calls in range(200):
            with asyncio.Runner() as runner:
                runner.get_loop().set_default_executor(Inline())
                if not runner.run(one(story, calls)):
                    return calls
        raise AssertionError("the story does not end")

    yield all_of


async def go(replica: Replica, calls: int = TO_THE_END) -> bool:
    """Let it make so many calls; whether it made them all."""
    for _ in range(calls):
        if not await replica.step(0):
            return False
    return True


async def marked_long_ago(world: World) -> None:
    """The bundle is there, out of use, and everything of it bears a mark that is old enough."""
    await world.ask(world.processes[0], LOCK)
    await go(world.processes[0])
    world.answered.clear()
    world.time += RULES.used
    await world.collect_whole()
    world.time += RULES.grace
    world.processes = [world.new_process("t1"), world.new_process("t1")]


async def collected(world: World) -> None:
    await world.collect_whole()
    world.time += RULES.grace + timedelta(minutes=1)
    await world.collect_whole()
    await world.check_references()


def test_everything_is_collected_in_the_middle_of_a_request(at_every_call: Callable[[Story], int]) -> None:
    async def story(world: World, calls: int) -> bool:
        process = world.processes[0]
        await world.ask(process, LOCK)
        more = await go(process, calls)
        await collected(world)
        await go(process)
        assert LOCK.digest in {lock for lock, _ in world.answered}
        return more

    assert at_every_call(story) > 15


def test_a_request_comes_in_the_middle_of_a_removal(at_every_call: Callable[[Story], int]) -> None:
    async def story(world: World, calls: int) -> bool:
        await marked_long_ago(world)
        collector, process = world.collectors[0], world.processes[0]
        await world.collect(collector)
        more = await go(collector, calls)
        await world.ask(process, LOCK)
        while not all(task.done() for task in process.tasks):
            if not await process.step(0):
                await collector.step(0)  # whose transaction it waits for
        await world.check_references()
        await go(collector)
        await world.check_references()
        assert LOCK.digest in {lock for lock, _ in world.answered}
        return more

    assert at_every_call(story) > 10


@pytest.mark.parametrize("known", [False, True])
def test_a_request_is_stopped_for_longer_than_its_use_holds(at_every_call: Callable[[Story], int], known: bool) -> None:
    """A use holds from when it was recorded, at the earliest from when it was asked: an answer that is hours late is
    whole when it is given, stays so for the grace, and is had again by asking again."""

    async def story(world: World, calls: int) -> bool:
        process = world.processes[0]
        if known:
            await world.ask(world.processes[1], LOCK)
            await go(world.processes[1])
            world.time += RULES.grace
        await world.ask(process, LOCK)
        more = await go(process, calls)
        world.time += RULES.used + timedelta(minutes=20)
        await go(process)  # looks whether all of what it gives out is there
        given = set(await world.records())
        await world.collect_whole()
        world.time += RULES.grace - timedelta(minutes=1)
        await world.collect_whole()
        assert set(await world.records()) == given != set(), "gone within the grace"
        world.time += timedelta(minutes=2)
        await world.collect_whole()
        await world.check_references()
        assert world.in_use() <= set(await world.records()), "gone while its use holds"
        await world.ask(process, LOCK)
        await go(process)
        return more

    assert at_every_call(story) > 5


@pytest.mark.parametrize(("ahead", "then"), [(1, TO_THE_END), (2, 3), (8, 3), (14, TO_THE_END), (20, 3)])
def test_a_request_that_has_begun_meets_a_removal(at_every_call: Callable[[Story], int], ahead: int, then: int) -> None:
    async def story(world: World, calls: int) -> bool:
        await marked_long_ago(world)
        collector, process = world.collectors[0], world.processes[0]
        await world.ask(process, LOCK)
        await go(process, ahead)
        await world.collect(collector)
        more = await go(collector, calls)
        await go(process, then)
        await go(collector)
        await world.check_references()
        await go(process)
        await go(collector)
        return more

    assert at_every_call(story) > 3


@pytest.mark.parametrize("deleted", [1, 3])
def test_a_removal_is_killed_before_it_says_what_it_deleted(
    at_every_call: Callable[[Story], int], deleted: int
) -> None:
    async def story(world: World, calls: int) -> bool:
        process, collector = world.processes[0], world.collectors[0]
        await world.ask(process, LOCK)
        more = await go(process, calls)
        await world.collect_whole()
        world.time += RULES.grace + timedelta(minutes=1)
        there = len([blob async for blob in world.blobs.all()])
        await world.collect(collector)
        while len([blob async for blob in world.blobs.all()]) > max(0, there - deleted) and await go(collector, 1):
            await world.check_references()
        await collector.kill()
        await go(process)
        await world.check_references()
        assert LOCK.digest in {lock for lock, _ in world.answered}
        return more

    assert at_every_call(story) > 15


def test_a_request_is_killed(at_every_call: Callable[[Story], int]) -> None:
    async def story(world: World, calls: int) -> bool:
        await world.ask(world.processes[0], LOCK)
        more = await go(world.processes[0], calls)
        await world.processes[0].kill()
        await world.check_references()
        return more

    assert at_every_call(story) > 15


def test_a_removal_is_killed_and_the_bundle_wanted_again(at_every_call: Callable[[Story], int]) -> None:
    async def story(world: World, calls: int) -> bool:
        await marked_long_ago(world)
        await world.collect(world.collectors[0])
        more = await go(world.collectors[0], calls)
        await world.collectors[0].kill()
        await world.check_references()
        await world.ask(world.processes[0], LOCK)
        await go(world.processes[0])
        assert world.in_use()
        return more

    assert at_every_call(story) > 10


def test_two_removals_meet(at_every_call: Callable[[Story], int]) -> None:
    async def story(world: World, calls: int) -> bool:
        await marked_long_ago(world)
        one, two = world.collectors
        await world.collect(one)
        await world.collect(two)
        more = await go(one, calls)
        while await go(two, 1) or await go(one, 1):
            await world.check_references()
        return more

    assert at_every_call(story) > 10


def test_a_bundle_that_shares_layers_is_asked_for_in_the_middle_of_a_removal(
    at_every_call: Callable[[Story], int],
) -> None:
    other = lock_of("c", "d")

    async def story(world: World, calls: int) -> bool:
        await marked_long_ago(world)
        collector, process = world.collectors[0], world.processes[0]
        await world.collect(collector)
        more = await go(collector, calls)
        await world.ask(process, other)
        await go(process, calls)
        await go(collector)
        await world.check_references()
        await go(process)
        return more

    assert at_every_call(story) > 10
