"""Which lock a request gets: the table "Keys, locks and pins" of the contract, as one pure function.

    step  if                                                            then
    1     the revision has a pin, and a lock of it covers the target    ServePin
    1b    the revision has a pin, and none of its locks does            ExtendPin
          the workload is on hold                                       TakeHeld
    2     another revision has a pin made since the refresh, not stale  AdoptPin
    3     a fresh lock for the key covers the target                    TakeLock
    4     else                                                          Resolve

Whoever executes a decision reads the situation, decides, does it, and goes round again until there is a lock to
serve: every step but the first ends in a pin (the first writer wins), and the next round starts from the pin that
stands. So those who lose a race answer with what the winner wrote.

What makes this right, beside the table:

- A pin, and the record that a key was answered, bear the time at which their situation was read: what was under way
  when a refresh came was asked before it, and counts as such.
- An extension is no answer to its key, since it holds old versions, so it is never recorded as a Resolution: step 3
  would hand them to a new revision. Neither does serving a stale lock renew the Resolution that it came from.
- A pin is extended from what was read of it. Two target classes that extend it at once would not hold each other's
  versions: the later one has to find that the pin has changed, and to go round again.
- A rollback is step 1: the revision is there. A hold lasts until the refresh, which takes it off the record.
- Without a workload there is no pin, and steps 3 and 4 are all.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from resolver.domain.errors import InvalidRequest
from resolver.domain.keys import ResolutionKey
from resolver.domain.outcomes import Notice
from resolver.domain.requests import Workload
from storage.content import Digest
from storage.records import PinRecord, Resolution, WorkloadRecord

_OWN_PREFIX = "@"  # no name and no label value of Kubernetes has one
UNNAMED = f"{_OWN_PREFIX}refresh-"
"""The revisions of a workload that has none of its own: this, and the number of its refreshes."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is known of the revision that asks, and of its workload.

    `own` is the revision's pin for the key, `covered` the target classes of that pin's first lock; where there is an
    own pin, nothing else matters. `newest` is the newest pin of the workload for the key that was made since its last
    refresh and is not stale. `hold_answers`: the lock on hold is one that the key was answered with, or is in a pin
    for the key.
    """

    record: WorkloadRecord
    revision: str
    own: PinRecord | None = None
    covered: Collection[str] = ()
    newest: PinRecord | None = None
    hold_answers: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on, read from `now` on (aware). `target` is the name of a target class,
    `resolutions` are what the key was answered with, `rollout` is None where the request names no workload."""

    now: datetime
    key: ResolutionKey
    target: str
    fresh_for: timedelta
    resolutions: Collection[Resolution] = ()
    rollout: Rollout | None = None

    def pin(self, lock: Digest, *, stale: bool = False) -> PinRecord | None:
        """The pin to write for a lock that was resolved; None where there is no workload to pin."""
        return None if self.rollout is None else _pin(self, self.rollout, lock, stale=stale)

    def resolution(self, lock: Digest, targets: Collection[str]) -> Resolution:
        """The record to write for a lock that was resolved for the key, covering these target classes."""
        return Resolution(self.key, lock, tuple(sorted(targets)), self.now)


@dataclass(frozen=True, slots=True)
class ServePin:
    """Step 1: this lock, always, whatever was released or refreshed since."""

    lock: Digest
    pin: PinRecord


@dataclass(frozen=True, slots=True)
class ExtendPin:
    """Step 1b: lock for the target, holding the versions in all of the `held` locks, and add that to the pin if the
    pin is still as it was read."""

    pin: PinRecord

    @property
    def held(self) -> tuple[Digest, ...]:
        """The locks of the pin."""
        return (self.pin.lock, *(lock for _, lock in self.pin.extensions))


@dataclass(frozen=True, slots=True)
class TakeHeld:
    """The workload is on hold: write this pin."""

    pin: PinRecord


@dataclass(frozen=True, slots=True)
class AdoptPin:
    """Step 2: write this pin, which has the locks of another revision, extensions and all."""

    pin: PinRecord
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class TakeLock:
    """Step 3: serve this lock; with a workload, write the pin first."""

    resolution: Resolution
    pin: PinRecord | None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolve:
    """Step 4: resolve. Where the index cannot be reached, serve the fallback (if any) as `stale`, and pin it so."""

    fallback: Resolution | None
    notices: tuple[Notice, ...] = ()


Decision = ServePin | ExtendPin | TakeHeld | AdoptPin | TakeLock | Resolve


def decide(situation: Situation) -> Decision:
    """The one next step for a request in this situation."""
    rollout = situation.rollout
    notices: tuple[Notice, ...] = ()
    if rollout is not None:
        if rollout.own is not None:
            return _serve_or_extend(rollout.own, rollout.covered, situation.target)
        if hold := rollout.record.hold:
            if rollout.hold_answers:
                return TakeHeld(_pin(situation, rollout, hold.lock))
            notices = (_hold_not_applicable(hold.lock),)
        if newest := rollout.newest:
            return AdoptPin(_pin(situation, rollout, newest.lock, extensions=newest.extensions), notices)
    covering = sorted((r for r in situation.resolutions if situation.target in r.targets), key=lambda r: r.at)
    newest_lock = covering[-1] if covering else None
    if newest_lock is not None and newest_lock.at > _fresh_since(situation):
        return TakeLock(newest_lock, situation.pin(newest_lock.lock), notices)
    return Resolve(newest_lock, notices)


def revision_of(workload: Workload, record: WorkloadRecord) -> str:
    """The revision that the workload is at. One that has none of its own has one a refresh: `@refresh-<count>`.

    Raises:
        InvalidRequest: the caller's own name for it is empty, or could be taken for one of those.
    """
    if workload.revision is None:
        return f"{UNNAMED}{record.refreshes}"
    if not workload.revision or workload.revision.startswith(_OWN_PREFIX):
        raise InvalidRequest(f"it is empty, or starts with {_OWN_PREFIX!r}", field="workload.revision")
    return workload.revision


def _serve_or_extend(pin: PinRecord, covered: Collection[str], target: str) -> ServePin | ExtendPin:
    lock = pin.lock if target in covered else dict(pin.extensions).get(target)
    return ExtendPin(pin) if lock is None else ServePin(lock, pin)


def _fresh_since(situation: Situation) -> datetime:
    oldest = situation.now - situation.fresh_for
    refreshed = situation.rollout.record.refreshed_at if situation.rollout else None
    return max(oldest, refreshed) if refreshed else oldest


def _pin(
    situation: Situation,
    rollout: Rollout,
    lock: Digest,
    *,
    stale: bool = False,
    extensions: tuple[tuple[str, Digest], ...] = (),
) -> PinRecord:
    record = rollout.record
    return PinRecord(
        record.namespace, record.workload, rollout.revision, situation.key, lock, situation.now, stale, extensions
    )


def _hold_not_applicable(lock: Digest) -> Notice:
    return Notice("hold-not-applicable", f"the workload is on hold at {lock}, which is no lock for these requirements")
