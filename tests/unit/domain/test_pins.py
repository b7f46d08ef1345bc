"""The table of the contract, row by row, and the traps beside it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from resolver.domain.errors import InvalidRequest
from resolver.domain.pins import (
    AdoptPin,
    ExtendPin,
    Resolve,
    Rollout,
    ServePin,
    Situation,
    TakeHeld,
    TakeLock,
    decide,
    revision_of,
)
from resolver.domain.requests import Workload
from storage.content import Digest
from storage.records import Hold, PinRecord, Resolution, WorkloadRecord
from tests.unit.domain.pins_world import KEYS, NAMESPACE, Request, World, ask, finish

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY, OTHER_KEY = KEYS
LOCK, NEWER, EXTENSION = (Digest.of(name) for name in [b"lock", b"newer", b"extension"])
RECORD = WorkloadRecord(NAMESPACE, "checkout")
PIN = PinRecord(NAMESPACE, "checkout", "r1", KEY, LOCK, NOW - HOUR, extensions=(("arm64", EXTENSION),))


def resolution(lock: Digest = LOCK, age: timedelta = HOUR, targets: tuple[str, ...] = ("amd64",)) -> Resolution:
    return Resolution(KEY, lock, targets, NOW - age)


def situation(
    *resolutions: Resolution, rollout: Rollout | None = None, target: str = "amd64", fresh_for: timedelta = 24 * HOUR
) -> Situation:
    return Situation(NOW, KEY, target, fresh_for, resolutions, rollout)


def test_step_1_a_pin_is_served_whatever_else_there_is() -> None:
    held = replace(RECORD, refreshes=3, refreshed_at=NOW, hold=Hold(NEWER, NOW))
    rollout = Rollout(held, "r1", PIN, ("amd64",), newest=replace(PIN, lock=NEWER), hold_answers=True)
    assert decide(situation(resolution(NEWER), rollout=rollout)) == ServePin(LOCK, PIN)
    assert decide(situation(rollout=rollout, target="arm64")) == ServePin(EXTENSION, PIN)
    stale = replace(rollout, own=replace(PIN, stale=True))
    assert decide(situation(resolution(NEWER), rollout=stale)) == ServePin(LOCK, replace(PIN, stale=True))


def test_step_1b_a_pin_is_extended_holding_all_that_it_has() -> None:
    decision = decide(
        situation(resolution(targets=("musl",)), rollout=Rollout(RECORD, "r1", PIN, ("amd64",)), target="musl")
    )
    assert decision == ExtendPin(PIN)
    assert isinstance(decision, ExtendPin)
    assert decision.held == (LOCK, EXTENSION)


def test_step_2_a_new_revision_takes_what_the_others_have_extensions_and_all() -> None:
    rollout = Rollout(RECORD, "r2", newest=PIN)
    adopted = replace(PIN, revision="r2", created=NOW)
    assert decide(situation(resolution(NEWER), rollout=rollout)) == AdoptPin(adopted)
    assert decide(situation(rollout=rollout, target="musl")) == AdoptPin(adopted)


def test_a_hold_comes_before_the_other_revisions() -> None:
    record = replace(RECORD, hold=Hold(NEWER, NOW))
    decision = decide(situation(resolution(), rollout=Rollout(record, "r2", newest=PIN, hold_answers=True)))
    assert decision == TakeHeld(PinRecord(NAMESPACE, "checkout", "r2", KEY, NEWER, NOW))


def test_a_hold_that_is_no_answer_to_the_key_is_passed_over_and_said() -> None:
    record = replace(RECORD, hold=Hold(NEWER, NOW))
    adopted = decide(situation(rollout=Rollout(record, "r2", newest=PIN)))
    taken = decide(situation(resolution(), rollout=Rollout(record, "r2")))
    resolved = decide(situation(rollout=Rollout(record, "r2")))
    assert isinstance(adopted, AdoptPin)
    assert isinstance(taken, TakeLock)
    assert isinstance(resolved, Resolve)
    for [notice] in [adopted.notices, taken.notices, resolved.notices]:
        assert notice.code == "hold-not-applicable"
        assert NEWER in notice.message


def test_step_3_the_newest_fresh_lock_that_covers_the_target() -> None:
    newest = resolution(NEWER, HOUR)
    found = [resolution(LOCK, 2 * HOUR), newest, resolution(EXTENSION, HOUR / 2, ("arm64",))]
    assert decide(situation(*found)) == TakeLock(newest, None)
    pin = PinRecord(NAMESPACE, "checkout", "r1", KEY, NEWER, NOW)
    assert decide(situation(*found, rollout=Rollout(RECORD, "r1"))) == TakeLock(newest, pin)


@pytest.mark.parametrize(
    ("age", "refreshed", "fresh"),
    [
        (HOUR, None, True),
        (24 * HOUR, None, False),
        (23 * HOUR, None, True),
        (HOUR, 2 * HOUR, True),
        (HOUR, HOUR, False),
        (2 * HOUR, HOUR, False),
        (30 * HOUR, 40 * HOUR, False),
    ],
)
def test_fresh_is_younger_than_fresh_for_and_than_the_refresh(
    age: timedelta, refreshed: timedelta | None, fresh: bool
) -> None:
    record = replace(RECORD, refreshed_at=NOW - refreshed if refreshed else None)
    decision = decide(situation(resolution(age=age), rollout=Rollout(record, "r1")))
    assert isinstance(decision, TakeLock if fresh else Resolve)


def test_step_4_falls_back_on_the_newest_lock_that_covers_the_target() -> None:
    old = [resolution(LOCK, 90 * HOUR), resolution(NEWER, 80 * HOUR), resolution(EXTENSION, 70 * HOUR, ("musl",))]
    assert decide(situation(*old)) == Resolve(old[1])
    assert decide(situation(*old, target="arm64")) == Resolve(None)
    assert decide(situation()) == Resolve(None)


def test_what_is_written_bears_the_time_of_the_situation() -> None:
    here = situation(rollout=Rollout(RECORD, "r1"))
    assert here.pin(LOCK, stale=True) == PinRecord(NAMESPACE, "checkout", "r1", KEY, LOCK, NOW, stale=True)
    assert here.resolution(LOCK, ["b", "a"]) == Resolution(KEY, LOCK, ("a", "b"), NOW)
    assert situation().pin(LOCK) is None


def test_a_workload_without_revisions_has_one_a_refresh() -> None:
    workload = Workload(NAMESPACE, "checkout")
    first = revision_of(workload, RECORD)
    second = revision_of(workload, replace(RECORD, refreshes=1))
    assert first != second
    assert revision_of(replace(workload, revision="6d4cf56db6"), RECORD) == "6d4cf56db6"
    for taken in [first, second, "@", ""]:
        with pytest.raises(InvalidRequest) as caught:
            revision_of(replace(workload, revision=taken), RECORD)
        assert caught.value.field == "workload.revision"


# Traps that take two callers at once. The state machine meets them too, but not in every run.


def test_what_was_asked_before_a_refresh_is_no_answer_after_it() -> None:
    world = World()
    slow = ask(world, Request(KEY, "amd64", "checkout", "r1"))
    for _ in range(6):
        next(slow)  # it has its answer of the index, and has not written it
    assert not world.resolutions
    world.release("core", ["amd64", "arm64", "musl"])
    world.refresh("checkout")
    world.tick()
    old = finish(slow)
    new = finish(ask(world, Request(KEY, "amd64", "checkout", "r2")))
    assert (old.outcome, new.outcome) == ("resolved", "resolved")
    assert [world.locks[answer.lock].versions for answer in [old, new] if answer.lock] == [
        (("core", 1),),
        (("core", 2),),
    ]


def test_two_targets_that_extend_a_pin_at_once_still_agree() -> None:
    world = World()
    finish(ask(world, Request(KEY, "amd64", "checkout", "r1")))
    musl, arm64 = (ask(world, Request(KEY, target, "checkout", "r1")) for target in ["musl", "arm64"])
    for _ in range(5):
        next(musl)  # it has locked simd 1, and has not written it
    world.release("simd", ["amd64", "arm64", "musl"])
    extensions = [finish(arm64), finish(musl)]
    assert {dict(world.locks[answer.lock].versions)["simd"] for answer in extensions if answer.lock} == {2}


def test_of_two_first_writers_the_loser_answers_with_the_winners_lock() -> None:
    world = World()
    loser, winner = (ask(world, Request(KEY, "amd64", "checkout", "r1")) for _ in range(2))
    for _ in range(6):
        next(loser)
    world.release("core", ["amd64", "arm64", "musl"])
    won, lost = finish(winner), finish(loser)
    assert won.lock == lost.lock
    assert won.pin == lost.pin
