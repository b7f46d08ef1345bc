"""Whatever happens in whatever order, and whoever is killed in between: no record needs what is gone, what is held
stays, what is given out is whole, and garbage goes in the end."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from structlog.testing import capture_logs

from resolver.service import retain
from storage.metadata import database
from storage.metadata.store import SqlMetadataStore
from tests.support.postgres import PostgresServer
from tests.unit.service.replica import Inline
from tests.unit.service.retain_world import LOCKS, RULES, World

LOCK = st.sampled_from(LOCKS)
WORKLOAD = st.sampled_from(["checkout", "search"])
ONE_OF_TWO = st.integers(0, 1)
TO_THE_END = 1000
SOME_STEPS = st.integers(0, 45) | st.just(TO_THE_END)


class Retention(RuleBasedStateMachine):
    """Replicas that give out bundles, collections, pins, holds, kills, time."""

    def __init__(self, new_database: Callable[[], AbstractContextManager[str]]) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.url = self.closing.enter_context(new_database())
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Inline())
        self.revision = 0

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        async def world() -> World:
            world = World(SqlMetadataStore(database.Database.at(database.parse(self.url))))
            await world.set_up()
            return world

        self.world = self.do(world())
        self.held: set[Any] = set()

    @rule(number=ONE_OF_TWO, lock=LOCK, steps=SOME_STEPS, choice=st.integers(0, 5))
    def ask(self, number: int, lock: Any, steps: int, choice: int) -> None:
        self.do(self.world.ask(self.world.processes[number], lock))
        self.go_on(self.world.processes[number], steps, choice)

    @rule(number=ONE_OF_TWO, steps=SOME_STEPS, choice=st.integers(0, 5))
    def work(self, number: int, steps: int, choice: int) -> None:
        self.go_on(self.world.processes[number], steps, choice)

    @rule(number=ONE_OF_TWO, steps=SOME_STEPS)
    def collect(self, number: int, steps: int) -> None:
        self.do(self.world.collect(self.world.collectors[number]))
        self.go_on(self.world.collectors[number], steps)

    @rule(number=ONE_OF_TWO, steps=SOME_STEPS)
    def collect_what_was_marked(self, number: int, steps: int) -> None:
        """One collection, the grace, and another, as far as it goes."""
        self.collect(number, TO_THE_END)
        self.wait(61)
        self.collect(number, steps)

    @rule(number=ONE_OF_TWO, toolchain=st.sampled_from(["t1", "t2"]))
    def kill_a_process(self, number: int, toolchain: str) -> None:
        self.do(self.world.processes[number].kill())
        self.world.processes[number] = self.world.new_process(toolchain)

    @rule(number=ONE_OF_TWO)
    def kill_a_collector(self, number: int) -> None:
        collector = self.world.collectors[number]
        self.do(collector.kill())
        self.world.collectors[number] = type(collector)(self.world.stage)

    @rule(lock=LOCK, workload=WORKLOAD)
    def pin(self, lock: Any, workload: str) -> None:
        self.revision += 1
        self.write(self.world.pin(lock, workload, f"r{self.revision}"))

    @rule(lock=LOCK, workload=WORKLOAD)
    def hold(self, lock: Any, workload: str) -> None:
        self.write(self.world.hold(lock, workload))

    @rule(workload=WORKLOAD)
    def refresh(self, workload: str) -> None:
        self.write(self.world.store.workloads.refresh("shop", workload, self.world.clock()))

    @rule(content=st.binary(max_size=3))
    def leave_an_orphan(self, content: bytes) -> None:
        self.do(self.world.leave_an_orphan(content))

    @rule(minutes=st.sampled_from([5, 20, 61, 200]))
    def wait(self, minutes: int) -> None:
        self.world.time += timedelta(minutes=minutes)

    @invariant()
    def nothing_dangles(self) -> None:
        self.do(self.world.check_references())
        self.world.raise_failures()

    @invariant()
    def what_is_held_stays(self) -> None:
        there = self.do(self.world.records())
        for place in self.held | self.world.in_use():
            assert place in there, f"what is held is gone: {place}"
        self.held = self.do(self.world.held(there))

    def go_on(self, replica: Any, steps: int, choice: int = 0) -> None:
        for step in range(steps):
            if not self.do(replica.step(choice * (step + 1))):
                return

    def write(self, work: Any) -> None:
        """Whoever writes would wait for the transaction that is open."""
        if self.world.stage.writer is None:
            self.do(work)
        else:
            work.close()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.do(self.end())
        finally:
            if hasattr(self, "world"):
                self.do(self.world.tear_down())
            self.loop.close()
            self.closing.close()

    async def end(self) -> None:
        world = self.world
        await world.quiet()
        await world.check_references()
        # Until no use holds any more, nothing is marked, and no mark is younger than the grace.
        for _ in range(6):
            await world.collect_whole()
            world.time += RULES.grace
        await world.collect_whole()
        await world.check_references()
        await world.check_only_held_is_left()
        world.time += RULES.seen
        for _ in range(3):
            world.time += RULES.used
            await world.collect_whole()
        assert [blob async for blob in world.blobs.all()] == []
        assert await world.store.retention.page(None, 1) == []
        assert (await world.store.pins.page(None, None, 1)).items == []


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retain, "_REMOVAL", 3600.0)  # a machine that is stopped in a transaction takes its time


def run(new_database: Callable[[], AbstractContextManager[str]], examples: int) -> None:
    class OnThat(Retention):
        def __init__(self) -> None:
            super().__init__(new_database)

    checks = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    with capture_logs():
        run_state_machine_as_test(OnThat, settings=checks)


def test_on_sqlite(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    database.migrate(database.parse(f"sqlite:///{template}"))

    @contextmanager
    def copy() -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            shutil.copy(template, f"{folder}/lockstep.db")
            yield f"sqlite:///{folder}/lockstep.db"

    run(copy, examples=15)


def test_on_postgresql() -> None:
    with PostgresServer() as postgres, postgres.database() as migrated:
        database.migrate(database.parse(postgres.url(migrated)))

        @contextmanager
        def copy() -> Iterator[str]:
            with postgres.database(template=migrated) as name:
                yield postgres.url(name)

        run(copy, examples=6)
