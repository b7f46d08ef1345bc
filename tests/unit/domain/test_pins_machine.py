"""Requests, new revisions, new targets, refresh, hold, rollback, stale and releases, in any order and interleaving.

What must hold is said here from the contract, over the history of the world, and not by what `decide` does.
"""

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resolver.domain.keys import ResolutionKey
from storage.content import Digest
from storage.records import PinRecord
from tests.unit.domain.pins_world import (
    FRESH_FOR,
    KEYS,
    NEEDS,
    TARGETS,
    TICK,
    Answer,
    PinKey,
    Request,
    World,
    ask,
    finish,
)

WORKLOADS = ("checkout", "reports")
keys = st.sampled_from([KEYS[0], KEYS[0], KEYS[1]])
targets = st.sampled_from(TARGETS)


class Pins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.revisions = 0
        self.callers: list[Generator[None, None, Answer]] = []
        self.answers: dict[tuple[str, str, str, str], Digest] = {}
        self.versions: dict[tuple[PinKey, str], int] = {}
        self.pins: dict[PinKey, PinRecord] = {}
        self.operated: dict[str, list[tuple[datetime, Digest | None]]] = {workload: [] for workload in WORKLOADS}
        self.changes: list[datetime] = []

    # What happens

    @initialize(platforms=st.sampled_from([(), ("amd64", "arm64")]))
    def operator_sets_up(self, platforms: tuple[str, ...]) -> None:
        self.world.platforms = platforms

    @rule(package=st.sampled_from(["core", "simd"]), having=st.sets(st.sampled_from(TARGETS), min_size=1))
    def a_release(self, package: str, having: set[str]) -> None:
        self.world.release(package, having)

    @rule(package=st.sampled_from(["core", "simd"]))
    def a_release_for_all(self, package: str) -> None:
        self.world.release(package, TARGETS)

    @rule()
    def the_index_goes_down_or_up(self) -> None:
        self.world.index_is_up = not self.world.index_is_up
        self.changes.append(self.world.tick())

    @rule(part=st.sampled_from([0.3, 0.6, 1.2]))
    def time_passes(self, part: float) -> None:
        self.world.now += FRESH_FOR * part

    @rule(workload=st.sampled_from(WORKLOADS))
    def a_refresh(self, workload: str) -> None:
        self.world.refresh(workload)
        self.operated[workload].append((self.world.now, None))

    @precondition(lambda self: self.world.locks)
    @rule(workload=st.sampled_from(WORKLOADS), data=st.data())
    def a_hold(self, workload: str, data: st.DataObject) -> None:
        lock = data.draw(st.sampled_from(list(self.world.locks)))
        self.world.hold(workload, lock)
        self.operated[workload].append((self.world.now, lock))

    @rule(key=keys, place=targets)
    def somebody_without_a_workload_asks(self, key: ResolutionKey, place: str) -> None:
        self.answered(finish(ask(self.world, Request(key, place))))

    @rule(key=keys, place=targets, workload=st.sampled_from(WORKLOADS))
    def a_workload_without_revisions_asks(self, key: ResolutionKey, place: str, workload: str) -> None:
        self.answered(finish(ask(self.world, Request(key, place, workload))))

    @rule(key=keys, place=targets, workload=st.sampled_from(WORKLOADS))
    def a_new_revision_asks(self, key: ResolutionKey, place: str, workload: str) -> None:
        self.answered(finish(ask(self.world, Request(key, place, workload, self.new_revision()))))

    @rule(key=keys, first=st.permutations(TARGETS), workload=st.sampled_from(WORKLOADS))
    def a_new_revision_begins_to_ask(self, key: ResolutionKey, first: list[str], workload: str) -> None:
        revision = self.new_revision()
        self.callers += [ask(self.world, Request(key, place, workload, revision)) for place in first[:2]]

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), place=targets)
    def a_revision_that_was_there_asks(self, data: st.DataObject, place: str) -> None:
        self.answered(finish(ask(self.world, self.old_revision(data, place))))

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def a_revision_that_was_there_begins_to_ask_on_all_targets(self, data: st.DataObject) -> None:
        request = self.old_revision(data, TARGETS[0])
        self.callers += [ask(self.world, replace(request, target=target)) for target in TARGETS]

    @rule(key=keys, place=targets, workload=st.sampled_from([*WORKLOADS, None]))
    def somebody_begins_to_ask(self, key: ResolutionKey, place: str, workload: str | None) -> None:
        self.callers.append(ask(self.world, Request(key, place, workload)))

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), steps=st.integers(1, 8))
    def somebody_goes_on(self, data: st.DataObject, steps: int) -> None:
        self.advance(data.draw(st.integers(0, len(self.callers) - 1)), steps)

    @precondition(lambda self: len(self.callers) > 1)
    @rule(steps=st.integers(1, 8))
    def all_go_on_in_step(self, steps: int) -> None:
        for _ in range(steps):
            for index in reversed(range(len(self.callers))):
                self.advance(index, 1)

    def new_revision(self) -> str:
        self.revisions += 1
        return f"r{self.revisions}"

    def old_revision(self, data: st.DataObject, target: str) -> Request:
        workload, revision, key = data.draw(st.sampled_from(sorted(self.pins)))
        return Request(ResolutionKey(key), target, workload, None if revision.startswith("@") else revision)

    def advance(self, index: int, steps: int) -> None:
        try:
            for _ in range(steps):
                next(self.callers[index])
        except StopIteration as end:
            del self.callers[index]
            self.answered(end.value)

    def teardown(self) -> None:
        for caller in self.callers:
            self.answered(finish(caller))
        self.pins_stand_and_were_right_when_written()

    # What must hold

    def answered(self, answer: Answer) -> None:
        if answer.lock is None:
            assert answer.outcome in {"index-unavailable", "target-conflict"}
            return
        lock = self.world.locks[answer.lock]
        assert answer.request.target in lock.targets
        assert dict(lock.versions).keys() == {p for target in lock.targets for p in NEEDS[answer.request.key][target]}
        if answer.pin is None:
            self.answered_without_workload(answer)
            return
        revision = (answer.pin.workload, answer.pin.revision, answer.pin.key)
        replica = (*revision, answer.request.target)
        assert self.answers.setdefault(replica, answer.lock) == answer.lock, "two replicas differ"
        for package, version in lock.versions:
            assert self.versions.setdefault((revision, package), version) == version, "targets of a revision differ"

    def answered_without_workload(self, answer: Answer) -> None:
        assert answer.request.workload is None
        covering = [
            resolution
            for resolution in self.world.resolutions.values()
            if resolution.key == answer.request.key and answer.request.target in resolution.targets
        ]
        mine = next(resolution for resolution in covering if resolution.lock == answer.lock)
        if answer.outcome == "stale":
            assert self.was_down(answer.began, self.world.now)
        else:
            assert mine.at > answer.began - FRESH_FOR, "older than fresh-for, though the index was there"
        if answer.outcome != "cached":
            began = answer.began + TICK
            assert not any(
                written < began < resolution.at + FRESH_FOR
                for written, resolution in self.world.resolved
                if resolution.key == answer.request.key and answer.request.target in resolution.targets
            ), "a fresh lock was passed over"

    @invariant()
    def pins_stand_and_were_right_when_written(self) -> None:
        for key, before in self.pins.items():
            now = self.world.pins[key]
            assert (now.lock, now.created, now.stale) == (before.lock, before.created, before.stale)
            assert now.extensions[: len(before.extensions)] == before.extensions
            assert len(dict(now.extensions)) == len(now.extensions)
        for key in self.world.pins.keys() - self.pins.keys():
            self.check_new(key, self.world.pins[key])
        self.pins = dict(self.world.pins)

    def check_new(self, key: PinKey, pin: PinRecord) -> None:
        workload, revision, _ = key
        if any(pin.created < at <= self.world.written[key] for at, _ in self.operated[workload]):
            return  # asked before the operator spoke, written after: either is right
        refreshes = sum(lock is None and at <= pin.created for at, lock in self.operated[workload])
        assert revision.startswith("r") or revision == f"@refresh-{refreshes}"
        refreshed, hold = self.told(workload, pin.created)
        answers_since = self.world.answers_since.get((pin.key, hold)) if hold else None
        if answers_since is not None and answers_since <= pin.created:
            assert pin.lock == hold, "a hold was not obeyed"
        if pin.lock == hold:
            return
        if pin.stale:
            assert self.was_down(pin.created, self.world.written[key])
            return
        others = [
            (self.world.written[other], standing)
            for other, standing in self.world.pins.items()
            if (other[0], other[2]) == (workload, pin.key) and other != key
            if not standing.stale and standing.created > refreshed
        ]
        earlier = [standing for written, standing in others if written <= pin.created]
        meanwhile = [standing for written, standing in others if written > pin.created]
        if earlier:
            newest = max(earlier, key=lambda standing: standing.created)
            assert pin.lock in {standing.lock for standing in [newest, *meanwhile]}, "revisions drift without a refresh"
        elif pin.lock not in {standing.lock for standing in meanwhile}:
            self.check_fresh(pin, max(refreshed, pin.created - FRESH_FOR))

    def check_fresh(self, pin: PinRecord, since: datetime) -> None:
        lock = self.world.locks[pin.lock]
        for package, version in lock.versions:
            having = [target for target in lock.targets if package in NEEDS[pin.key][target]]
            assert version >= self.world.best(package, having, since), "older than what a new revision is to have"

    # What the history says

    def told(self, workload: str, at: datetime) -> tuple[datetime, Digest | None]:
        """The last refresh, and the lock on hold, as the operator had left them at that time."""
        refreshed, hold = datetime.min.replace(tzinfo=UTC), None
        for time, lock in self.operated[workload]:
            if time <= at:
                refreshed, hold = (time, None) if lock is None else (refreshed, lock)
        return refreshed, hold

    def was_down(self, start: datetime, end: datetime) -> bool:
        changes = [change for change in self.changes if change <= end]
        return len(changes) % 2 == 1 or any(change > start for change in changes)


TestPins = Pins.TestCase
TestPins.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
