"""Cold work: making a lock that is not there, once for all replicas of the service, and publishing it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from packaging.utils import NormalizedName
from packaging.version import Version

from resolver.domain.builds import BuiltWheel
from resolver.domain.errors import IndexUnavailable, TimedOut
from resolver.domain.outcomes import BuildRequired, Refusal, refusal_from_json, refusal_to_json
from resolver.domain.pins import ExtendPin, Situation
from resolver.domain.ports import Exclusive
from resolver.domain.requests import ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.building import Building
from resolver.service.fair_turns import FairTurns
from resolver.service.index_health import IndexHealth
from resolver.service.lock_book import LockBook
from resolver.service.locking import Locked, Locking
from resolver.service.materialise import Materialising
from resolver.service.progress import Progress
from resolver.single_flight import SingleFlight
from storage.protocols import MetadataStore
from storage.records import Lease, Resolution

_ASK_EVERY = 3.0
"""Seconds that locking takes before its indexes are asked whether they answer, and between that and the next time."""
_BELIEVE = 2.0
_MOST_BUILDS = 32
"""Wheels that are built for one lock."""

log = structlog.get_logger(__name__)

T = TypeVar("T")

MovedOn = Callable[[], Awaitable[bool]]
BuiltWheels = tuple[BuiltWheel, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """What another replica did has changed the situation: decide anew."""


Made = Locked | Refusal | Again
Work = Callable[[Lease | None, BuiltWheels], Awaitable[Made]]


class LockMaking:
    """Makes locks: single-flight in this process, exclusive among replicas; a refusal is remembered for a short while,
    so that a broken set does not run the engine once a replica.

    A lock is known only once the bundle of the target that asked is there: what cannot be built leaves nothing behind.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        book: LockBook,
        locking: Locking,
        materialising: Materialising,
        building: Building,
        exclusive: Exclusive,
        health: IndexHealth,
        turns: FairTurns,
        *,
        platforms: Sequence[str],
        refusals_for: timedelta,
    ) -> None:
        self._metadata = metadata
        self._book = book
        self._locking = locking
        self._materialising = materialising
        self._building = building
        self._exclusive = exclusive
        self._health = health
        self._turns = turns
        self._platforms = tuple(platforms)
        self._refusals_for = refusals_for
        self._flights: SingleFlight[str, Made] = SingleFlight()

    async def resolve(
        self,
        request: ResolveRequest,
        situation: Situation,
        fallback: Resolution | None,
        moved_on: MovedOn,
        progress: Progress,
    ) -> Made | Resolution:
        """A new lock for the key; the fallback where the index cannot be reached and there is one.

        Raises what the ports and stores raise; IndexUnavailable at once where the index is known to be down.
        """
        others = [target for target in self._covered(request.target) if target != request.target]

        async def work(lease: Lease | None, built: BuiltWheels) -> Made:
            made = await self._while_up(request, self._locking.lock(request, others, built))
            if isinstance(made, Locked):
                await self._publish(made, request, progress)
                covered = [target.name for target in made.lock.targets]
                await self._metadata.locks.add_resolution(situation.resolution(made.lock.digest, covered), lease)
            return made

        # Who asks after a refresh may not join a flight from before it.
        refreshed = situation.rollout.record.refreshed_at if situation.rollout else None
        question = _question("resolve", situation.key, request.target.name, refreshed)
        try:
            if fallback is not None:
                # Whoever has something to fall back on does not wait to find out that the index is away.
                await self._health.check(request.indexes, "a fresh lock")
            return await self._once(question, request, moved_on, work, progress)
        except (IndexUnavailable, TimedOut) as failure:
            if fallback is None:
                raise
            log.warning("resolve.stale", lock=fallback.lock, cause=str(failure))
            return fallback

    async def extend(self, request: ResolveRequest, decision: ExtendPin, moved_on: MovedOn, progress: Progress) -> Made:
        """A lock for the request's target that holds the versions of the pin's locks. Raises as `resolve`."""
        versions: dict[NormalizedName, Version] = {}
        for digest in decision.held:
            versions = {**(await self._book.get(digest)).versions, **versions}

        async def work(_: Lease | None, built: BuiltWheels) -> Made:
            # No fence: the pin takes an extension only if it is still as it was read.
            made = await self._while_up(request, self._locking.extend(request, versions, built))
            if isinstance(made, Locked):
                await self._publish(made, request, progress)
            return made

        question = _question("extend", decision.pin.key, request.target.name, *decision.held)
        return await self._once(question, request, moved_on, work, progress)

    async def _publish(self, made: Locked, request: ResolveRequest, progress: Progress) -> None:
        await self._materialising.bundle(made.lock, request.target, progress)
        await self._book.add(made.lock)

    async def _once(
        self,
        question: str,
        request: ResolveRequest,
        moved_on: MovedOn,
        work: Work,
        progress: Progress,
    ) -> Made:
        async def look() -> Made | None:
            refused = await self._metadata.refusals.get(question, datetime.now(UTC))
            if refused is not None:
                return refusal_from_json(refused)
            return Again() if await moved_on() else None

        async def lead(lease: Lease | None) -> Made:
            made = await self._with_builds(request, lambda built: work(lease, built), progress)
            if not isinstance(made, Locked | Again) and self._refusals_for:
                now = datetime.now(UTC)
                await self._metadata.refusals.put(question, refusal_to_json(made), now, now + self._refusals_for)
            return made

        return await self._flights.do(question, lambda: self._exclusive.once(question, look, lead))

    async def _with_builds(
        self, request: ResolveRequest, work: Callable[[BuiltWheels], Awaitable[Made]], progress: Progress
    ) -> Made:
        """What the work comes to, once all that has to be built for it is. Nobody keeps a turn while a build runs:
        builds have turns of their own."""
        built: BuiltWheels = ()
        for _ in range(_MOST_BUILDS):
            async with self._turns.turn(request.namespace or ""):
                made = await self._watched(request, partial(work, built))
            if not isinstance(made, BuildRequired):
                return made
            progress.enter("building")
            provided = await self._watched(request, partial(self._building.provide, made, request))
            if not isinstance(provided, BuiltWheel):
                return provided
            if provided in built:
                return made  # there is a wheel by now, and it does not do
            built = (*built, provided)
            progress.enter("locking")
        return made

    async def _watched(self, request: ResolveRequest, work: Callable[[], Awaitable[T]]) -> T:
        """The work, unless an index is known to be down; where it fails for want of one, that index is asked."""
        self._health.require(request.indexes, "a new lock")
        try:
            made = await work()
        except (IndexUnavailable, TimedOut) as failure:
            suspects = failure.index.split(" or ") if isinstance(failure, IndexUnavailable) else None
            for index in request.indexes:
                if suspects is None or index.name in suspects:
                    await self._health.suspect(index)
            if isinstance(failure, TimedOut):
                # An engine that waits for ever for an index that drips has timed out for the index's fault.
                self._health.require(request.indexes, failure.what)
            raise
        self._health.answered(request.indexes)
        return made

    async def _while_up(
        self, request: ResolveRequest, locking: Coroutine[Any, Any, Locked | Refusal]
    ) -> Locked | Refusal:
        """What it comes to, unless it takes long and an index turns out to be down. An engine would not know: it waits
        for each page anew, and for ever for an index that drips."""
        task = asyncio.ensure_future(locking)
        try:
            while not (await asyncio.wait({task}, timeout=_ASK_EVERY))[0]:
                await self._health.check(request.indexes, "a new lock", _BELIEVE)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _covered(self, target: TargetEnvironment) -> list[TargetEnvironment]:
        named = [TargetEnvironment.from_platform(target.python, platform) for platform in self._platforms]
        return list(dict.fromkeys([target, *named]))

    @property
    def under_way(self) -> int:
        """How many locks are being made."""
        return len(self._flights)

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()


def _question(kind: str, *parts: object) -> str:
    """A name for what is asked: good as a lease's, and as a refusal's."""
    return f"{kind}:{hashlib.sha256(repr(parts).encode()).hexdigest()}"
