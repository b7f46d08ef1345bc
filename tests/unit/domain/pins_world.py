"""A world to try pins in: an index with releases, a store in memory, and callers who work step by step.

A caller is a generator that yields between any two of its reads and writes, so that others can come in between. It
is what a service does with `resolver.domain.pins`, on the simplest of engines.
"""

from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from resolver.domain.keys import ResolutionKey
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

NAMESPACE = "shop"
FRESH_FOR = timedelta(seconds=1_000)
TICK = timedelta(seconds=1)
TARGETS = ("amd64", "arm64", "musl")
KEYS = (ResolutionKey("a" * 64), ResolutionKey("b" * 64))
# What each key needs on each target; two targets share a package that the third does not have.
NEEDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    KEYS[0]: {
        "amd64": frozenset({"core"}),
        "arm64": frozenset({"core", "simd"}),
        "musl": frozenset({"core", "simd"}),
    },
    KEYS[1]: {target: frozenset({"core", "simd"}) for target in TARGETS},
}

Versions = dict[str, int]


@dataclass(frozen=True)
class Request:
    key: ResolutionKey
    target: str
    workload: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Lock:
    targets: tuple[str, ...]
    versions: tuple[tuple[str, int], ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(repr(self).encode())


@dataclass(frozen=True)
class Answer:
    request: Request
    began: datetime
    outcome: str
    lock: Digest | None = None
    pin: PinRecord | None = None


@dataclass(frozen=True)
class Release:
    package: str
    version: int
    targets: frozenset[str]
    at: datetime


PinKey = tuple[str, str, str]


@dataclass
class World:
    """`platforms` are those that the operator wants every lock to cover. Of what was written it also keeps when:
    `resolved` and `written` tell it for resolutions and pins, `answers_since` for a key and a lock that answers it."""

    platforms: tuple[str, ...] = ()
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    index_is_up: bool = True
    releases: list[Release] = field(default_factory=list)
    locks: dict[Digest, Lock] = field(default_factory=dict)
    resolutions: dict[tuple[str, Digest], Resolution] = field(default_factory=dict)
    pins: dict[PinKey, PinRecord] = field(default_factory=dict)
    resolved: list[tuple[datetime, Resolution]] = field(default_factory=list)
    written: dict[PinKey, datetime] = field(default_factory=dict)
    answers_since: dict[tuple[str, Digest], datetime] = field(default_factory=dict)
    workloads: dict[str, WorkloadRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for package in ("core", "simd"):
            self.release(package, TARGETS)

    # Time and the index

    def tick(self) -> datetime:
        self.now += TICK
        return self.now

    def release(self, package: str, targets: Collection[str]) -> None:
        version = sum(release.package == package for release in self.releases) + 1
        self.releases.append(Release(package, version, frozenset(targets), self.tick()))

    def best(self, package: str, targets: Collection[str], before: datetime) -> int:
        """The newest version that all the targets had by then; each package begins with one that they all have."""
        versions = (
            release.version
            for release in self.releases
            if release.package == package and release.targets.issuperset(targets) and release.at <= before
        )
        return max(versions, default=0)

    def lock(self, key: str, targets: Collection[str], held: Versions) -> Lock | None:
        """What an engine would lock now, None where the held versions do not exist for a target."""
        versions: Versions = {}
        for package in sorted({package for target in targets for package in NEEDS[key][target]}):
            having = [target for target in targets if package in NEEDS[key][target]]
            version = held.get(package) or self.best(package, having, self.now)
            if not any(r.package == package and r.version == version and r.targets >= {*having} for r in self.releases):
                return None
            versions[package] = version
        return Lock(tuple(sorted(targets)), tuple(versions.items()))

    # The store

    def record(self, workload: str) -> WorkloadRecord:
        return self.workloads.get(workload, WorkloadRecord(NAMESPACE, workload))

    def refresh(self, workload: str) -> None:
        record = self.record(workload)
        self.workloads[workload] = replace(record, refreshes=record.refreshes + 1, refreshed_at=self.tick(), hold=None)

    def hold(self, workload: str, lock: Digest) -> None:
        self.workloads[workload] = replace(self.record(workload), hold=Hold(lock, self.tick()))

    def newest(self, workload: str, key: str, after: datetime | None) -> PinRecord | None:
        found = [
            pin
            for (its_workload, _, its_key), pin in self.pins.items()
            if (its_workload, its_key) == (workload, key) and not pin.stale and (after is None or pin.created > after)
        ]
        return max(found, key=lambda pin: pin.created, default=None)

    def add_resolution(self, resolution: Resolution) -> None:
        known = self.resolutions.get((resolution.key, resolution.lock), resolution)
        self.resolutions[resolution.key, resolution.lock] = max(known, resolution, key=lambda known: known.at)
        self.resolved.append((self.tick(), resolution))
        self.answers_since.setdefault((resolution.key, resolution.lock), self.now)

    def add_pin(self, pin: PinRecord | None) -> None:
        if pin is not None and (pin.workload, pin.revision, pin.key) not in self.pins:
            self.pins[pin.workload, pin.revision, pin.key] = pin
            self.written[pin.workload, pin.revision, pin.key] = self.tick()
            for lock in ExtendPin(pin).held:
                self.answers_since.setdefault((pin.key, lock), self.now)

    def extend_pin(self, pin: PinRecord, target: str, lock: Digest) -> None:
        """Only if it is still what the caller read."""
        key = (pin.workload, pin.revision, pin.key)
        if self.pins[key].extensions == pin.extensions:
            self.pins[key] = replace(pin, extensions=(*pin.extensions, (target, lock)))
            self.answers_since.setdefault((pin.key, lock), self.tick())


def ask(world: World, request: Request) -> Generator[None, None, Answer]:
    """Serve one request, yielding wherever another caller may come in between."""
    began = world.now
    outcome: str | None = None
    while True:
        situation = yield from _read(world, request)
        decision = decide(situation)
        if isinstance(decision, ServePin):
            return Answer(request, began, outcome or "pinned", decision.lock, decision.pin)
        if isinstance(decision, TakeHeld | AdoptPin):
            world.add_pin(decision.pin)
            outcome = outcome or "pinned"
        elif isinstance(decision, ExtendPin):
            if not world.index_is_up:
                return Answer(request, began, "index-unavailable")
            held = {name: version for digest in decision.held for name, version in world.locks[digest].versions}
            extension = world.lock(request.key, [request.target], held)
            yield
            if extension is None:
                return Answer(request, began, "target-conflict")
            world.locks[extension.digest] = extension
            world.extend_pin(decision.pin, request.target, extension.digest)
        elif isinstance(decision, TakeLock):
            if decision.pin is None:
                return Answer(request, began, "cached", decision.resolution.lock)
            world.add_pin(decision.pin)
            outcome = outcome or "cached"
        else:
            digest, outcome = yield from _resolve(world, request, situation, decision)
            if digest is None or situation.rollout is None:
                return Answer(request, began, outcome, digest)
        yield


def _resolve(
    world: World, request: Request, situation: Situation, decision: Resolve
) -> Generator[None, None, tuple[Digest | None, str]]:
    if not world.index_is_up:
        if decision.fallback is None:
            return None, "index-unavailable"
        yield
        world.add_pin(situation.pin(decision.fallback.lock, stale=True))
        return decision.fallback.lock, "stale"
    yield
    lock = world.lock(request.key, {request.target, *world.platforms}, {})
    assert lock is not None, "each package has a version for all targets"
    yield
    world.locks[lock.digest] = lock
    world.add_resolution(situation.resolution(lock.digest, lock.targets))
    yield
    world.add_pin(situation.pin(lock.digest))
    return lock.digest, "resolved"


def _read(world: World, request: Request) -> Generator[None, None, Situation]:
    now = world.tick()
    yield
    rollout = None
    if request.workload is not None:
        record = world.record(request.workload)
        yield
        revision = revision_of(Workload(NAMESPACE, request.workload, request.revision), record)
        own = world.pins.get((request.workload, revision, request.key))
        covered = world.locks[own.lock].targets if own else ()
        yield
        answers = record.hold is not None and (request.key, record.hold.lock) in world.answers_since
        newest = world.newest(request.workload, request.key, record.refreshed_at)
        rollout = Rollout(record, revision, own, covered, newest, answers)
    yield
    resolutions = tuple(r for r in world.resolutions.values() if r.key == request.key)
    return Situation(now, request.key, request.target, FRESH_FOR, resolutions, rollout)


def finish(caller: Generator[None, None, Answer]) -> Answer:
    """Let a caller run to its end."""
    steps = _Result(caller)
    for number, _ in enumerate(steps):
        assert number < 1_000, "this goes round for ever"
    return steps.answer


class _Result:
    answer: Answer

    def __init__(self, caller: Generator[None, None, Answer]) -> None:
        self._caller = caller

    def __iter__(self) -> Iterator[None]:
        self.answer = yield from self._caller
