"""The main job: which lock a request gets, and its bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import structlog

from resolver.domain.errors import Busy
from resolver.domain.keys import ResolutionKey, resolution_key
from resolver.domain.locks import Lock
from resolver.domain.outcomes import Notice, Refusal
from resolver.domain.pins import (
    AdoptPin,
    Decision,
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
from resolver.domain.requests import ResolveRequest, Workload
from resolver.domain.targets import TargetEnvironment
from resolver.service.lock_book import LockBook
from resolver.service.lock_making import Again, LockMaking
from resolver.service.locking import Locked
from resolver.service.materialise import Materialising
from resolver.service.pinned import Pinned
from resolver.service.progress import Progress
from resolver.service.requests import class_base_notices
from resolver.service.uses import Uses
from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BundleRecord, PinName, PinRecord, Resolution

Outcome = Literal["pinned", "cached", "resolved", "stale"]

# Each turn but the last writes a pin or finds another's; only writers that keep racing each other need many.
_TURNS = 16
_STALE = Notice("stale", "locked while the index could not be reached")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A lock and its bundle for the target that asked."""

    lock: Lock
    bundle: BundleRecord
    outcome: Outcome
    pin: PinName | None
    target: TargetEnvironment
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A pin that stands or is to be written next, and the bundle that it means for the target that asked."""

    pin: PinRecord
    bundle: BundleRecord


@dataclass(frozen=True, slots=True)
class _Chosen:
    lock: Lock
    outcome: Outcome
    pin: PinName | None
    notices: tuple[Notice, ...]


class Resolving:
    """Executes the decisions of domain/pins.py around the stores."""

    def __init__(
        self,
        metadata: MetadataStore,
        book: LockBook,
        making: LockMaking,
        materialising: Materialising,
        uses: Uses,
        pinned: Pinned,
        *,
        platforms: Sequence[str] = (),
        fresh_for: timedelta,
    ) -> None:
        self._metadata = metadata
        self._book = book
        self._making = making
        self._materialising = materialising
        self._uses = uses
        self._pinned = pinned
        self._platforms = tuple(platforms)
        self._fresh_for = fresh_for

    async def answer(self, request: ResolveRequest, progress: Progress) -> Answer | Refusal:
        """One lock and one bundle, the same for every replica of the workload's revision.

        Raises what the ports and stores raise.
        """
        if (standing := await self._pinned.standing(request)) and standing.bundle:
            stale = (_STALE,) if standing.stale else ()
            chosen = _Chosen(await self._book.get(standing.lock), "pinned", standing.pin, stale)
            return _answer(request, chosen, standing.bundle, progress)
        made = await self._choose(request, progress)
        if not isinstance(made, _Chosen):
            return made
        return _answer(request, made, await self._materialising.bundle(made.lock, request.target, progress), progress)

    async def unpacked_size(self, request: ResolveRequest) -> int | None:
        """The most bytes that a replica of the workload's revision unpacks, by its pin; None where that is not known as
        yet. Writes nothing."""
        if request.workload is None:
            return None
        namespace, name = request.workload.namespace, request.workload.name
        revision = revision_of(request.workload, await self._metadata.workloads.get(namespace, name))
        pin = await self._metadata.pins.get(namespace, name, revision, resolution_key(request, self._platforms))
        if pin is None or pin.extensions:
            return None
        lock = await self._book.get(pin.lock)
        bundles = [await self._materialising.known(lock, target) for target in lock.targets]
        sizes = [bundle.unpacked_size for bundle in bundles if bundle is not None]
        return max(sizes) if sizes and len(sizes) == len(bundles) else None

    async def foreseen(self, request: ResolveRequest) -> Foreseen | None:
        """What a replica of the workload's revision would get on the strength of the workload's own pins or its hold;
        None where there is no such pin, or no bundle of it as yet. Writes nothing.

        Raises what the stores raise.
        """
        if request.workload is None:
            return None
        match decide(await self._situation(request, resolution_key(request, self._platforms))):
            case ServePin(_, pin) | TakeHeld(pin) | AdoptPin(pin):
                locks = [await self._book.get(digest) for digest in (pin.lock, *(each for _, each in pin.extensions))]
                lock = next((lock for lock in locks if request.target in lock.targets), None)
                bundle = await self._materialising.known(lock, request.target) if lock else None
                return Foreseen(pin, bundle) if bundle else None
            case _:
                return None

    async def settle(self, foreseen: Foreseen) -> bool:
        """Write the pin that was foreseen; False where another stands. Raises what the stores raise."""
        pin = foreseen.pin
        await self._uses.see(pin.namespace, pin.workload)
        standing = await self._metadata.pins.add(pin)
        return (standing.lock, standing.extensions) == (pin.lock, pin.extensions)

    async def _choose(self, request: ResolveRequest, progress: Progress) -> _Chosen | Refusal:
        key = resolution_key(request, self._platforms)
        if request.workload:
            await self._uses.see(request.workload.namespace, request.workload.name)
        outcome: Outcome = "pinned"
        reached: Outcome
        notices: list[Notice] = []
        for _ in range(_TURNS):
            situation = await self._situation(request, key)
            decision = decide(situation)

            async def moved_on(before: Decision = decision) -> bool:
                # What each would write bears its own time; that two decisions are alike is told by the rest.
                now = decide(await self._situation(request, key))
                return now != before if isinstance(before, ExtendPin) else type(now) is not type(before)

            match decision:
                case ServePin(digest, pin):
                    if pin.stale:
                        notices.append(_STALE)
                    name = PinName(pin.namespace, pin.workload, pin.revision)
                    return _Chosen(await self._book.get(digest), outcome, name, tuple(dict.fromkeys(notices)))
                case ExtendPin(pin):
                    progress.enter("locking")
                    extended = await self._making.extend(request, decision, moved_on, progress)
                    if isinstance(extended, Again):
                        continue
                    if not isinstance(extended, Locked):
                        return extended
                    await self._metadata.pins.extend(pin, request.target.name, extended.lock.digest)
                    outcome = "resolved"
                    notices.extend(extended.notices)
                    continue
                case TakeHeld(pin) | AdoptPin(pin):
                    if isinstance(decision, AdoptPin):
                        notices.extend(decision.notices)
                    await self._metadata.pins.add(pin)
                    continue
                case TakeLock(resolution, wanted):
                    notices.extend(decision.notices)
                    fresh, reached = resolution.lock, "cached"
                case Resolve(fallback):
                    notices.extend(decision.notices)
                    progress.enter("locking")
                    made = await self._making.resolve(request, situation, fallback, moved_on, progress)
                    if isinstance(made, Again):
                        continue
                    if isinstance(made, Resolution):
                        fresh, reached, wanted = made.lock, "stale", situation.pin(made.lock, stale=True)
                    elif isinstance(made, Locked):
                        notices.extend(made.notices)
                        fresh, reached, wanted = made.lock.digest, "resolved", situation.pin(made.lock.digest)
                    else:
                        return made
            if wanted is None:
                return _Chosen(await self._book.get(fresh), reached, None, tuple(dict.fromkeys(notices)))
            standing = await self._metadata.pins.add(wanted)
            outcome = reached if standing.lock == wanted.lock else "pinned"
        raise Busy("pinning", 1.0)

    async def _situation(self, request: ResolveRequest, key: ResolutionKey) -> Situation:
        now = datetime.now(UTC)
        rollout = await self._rollout(request.workload, key) if request.workload else None
        pinned = rollout is not None and rollout.own is not None
        resolutions = [] if pinned else await self._metadata.locks.resolutions(key)
        return Situation(now, key, request.target.name, self._fresh_for, resolutions, rollout)

    async def _rollout(self, workload: Workload, key: ResolutionKey) -> Rollout:
        namespace, name = workload.namespace, workload.name
        record = await self._metadata.workloads.get(namespace, name)
        revision = revision_of(workload, record)
        own = await self._metadata.pins.get(namespace, name, revision, key)
        if own is not None:
            covered = [target.name for target in (await self._book.get(own.lock)).targets]
            return Rollout(record, revision, own, covered)
        newest = await self._metadata.pins.newest(namespace, name, key, record.refreshed_at)
        answers = record.hold is not None and await self._answers(record.hold.lock, key)
        return Rollout(record, revision, newest=newest, hold_answers=answers)

    async def _answers(self, lock: Digest, key: ResolutionKey) -> bool:
        if key in await self._metadata.locks.keys_of(lock):
            return True
        return await self._metadata.pins.holds(lock, key)


def _answer(request: ResolveRequest, chosen: _Chosen, bundle: BundleRecord, progress: Progress) -> Answer:
    progress.enter("done")
    told = [Notice(**warning) for warning in bundle.warnings]
    return Answer(
        lock=chosen.lock,
        bundle=bundle,
        outcome=chosen.outcome,
        pin=chosen.pin,
        target=request.target,
        notices=tuple(dict.fromkeys([*class_base_notices(request), *chosen.notices, *told])),
    )
