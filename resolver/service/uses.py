"""Telling the stores what is in use, so seldom that a pinned answer costs them reads alone."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime, timedelta

import structlog

from resolver.domain.errors import IndexUnavailable, NotFound
from resolver.domain.ports import ProjectFile, WheelFetcher, WheelReference
from resolver.service.now_and_then import NowAndThen
from storage.content import Digest
from storage.errors import StorageError
from storage.protocols import ArtifactStore, ContentStore, WorkloadStore

_REMEMBERED = 10_000

log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """This moment, aware."""
    return datetime.now(UTC)


class Lately:
    """What was done in the last while, `every` long; the oldest is forgotten where it becomes too much."""

    def __init__(self, every: timedelta, clock: Clock = utc_now) -> None:
        self._every = every
        self._clock = clock
        self._times: OrderedDict[Hashable, datetime] = OrderedDict()

    def __contains__(self, what: Hashable) -> bool:
        at = self._times.get(what)
        return at is not None and self._clock() - at < self._every

    def add(self, what: Hashable) -> None:
        """It was done just now."""
        self._times[what] = self._clock()
        self._times.move_to_end(what)
        if len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)


class Uses:
    """Records which bundles and workloads are in use, each at most once in `every`, by this process.

    `every` is a fraction of the grace of a collection (see retain.py). So whatever was recorded lately is held, and
    need not be looked for again: a record that is still there says that all of it is.

    What is pinned is served also where the database has no room for one more time, or takes longer than `patience`
    seconds to write it.

    A workload is forgotten once it was not seen for `forgotten`. Where less than half of that has passed, nobody is
    about to forget it, and that it was seen again is written with others', in a while; what a crash loses of that is
    told by the next request that comes.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        workloads: WorkloadStore,
        *,
        every: timedelta,
        forgotten: timedelta = timedelta(),
        patience: float = 5.0,
        clock: Clock = utc_now,
    ) -> None:
        self._every = every
        self._near = forgotten / 2
        self._gathered: set[tuple[str, str]] = set()
        self._writing = NowAndThen("uses", self._write, lambda: len(self._gathered))
        self._artifacts = artifacts
        self._workloads = workloads
        self._patience = patience
        self._clock = clock
        self._lately = Lately(every, clock)

    def now(self) -> datetime:
        """The time that uses are recorded with."""
        return self._clock()

    def is_recent(self, bundle: Digest) -> bool:
        """Whether a use of the bundle was recorded lately, and the bundle then found whole."""
        return bundle in self._lately

    def found(self, bundle: Digest) -> None:
        """The bundle's use was recorded, and the bundle then found whole, or made."""
        self._lately.add(bundle)

    async def record(self, bundle: Digest) -> bool | None:
        """Record a use of the bundle; False where there is no record of it (any more), None where it could not be."""
        return await self._tried("bundle", self._artifacts.use(bundle, self._clock()))

    async def see(self, namespace: str, workload: str) -> None:
        """Record that the workload asks for something. To be done before its pins are read."""
        who = (namespace, workload)
        if who not in self._lately and await self._tried("workload", self._seen(namespace, workload)):
            self._lately.add(who)

    def seen(self, namespace: str, workload: str, last: datetime | None) -> bool:
        """Whether it need not be recorded at once that the workload asks for something, as it was last seen then. That
        time has to come from one read with the workload's pin: see `see`."""
        who = (namespace, workload)
        if who in self._lately:
            return True
        age = self._clock() - last if last else None
        if age is None or age >= max(self._every, self._near) or len(self._gathered) >= _REMEMBERED:
            return False
        if age >= self._every:
            self._gathered.add(who)
            self._writing.soon()
        self._lately.add(who)
        return True

    async def _write(self) -> None:
        gathered, self._gathered = self._gathered, set()
        written = False
        try:
            await self._workloads.see_all(gathered, self._clock())
            written = True
        finally:
            if not written:
                self._gathered |= gathered

    async def close(self) -> None:
        """Write what has gathered."""
        await self._writing.close()

    async def _seen(self, namespace: str, workload: str) -> bool:
        await self._workloads.see(namespace, workload, self._clock())
        return True

    async def _tried(self, what: str, recording: Awaitable[bool]) -> bool | None:
        try:
            async with asyncio.timeout(self._patience):
                return await recording
        except (StorageError, TimeoutError) as failure:
            log.warning("use.not-recorded", what=what, cause=str(failure) or "the database takes long")
            return None


class ClaimedWheels:
    """Wheels that are claimed before they are looked for, so that none is removed under whoever is about to read it."""

    def __init__(
        self, wheels: WheelFetcher, contents: ContentStore, *, every: timedelta, clock: Clock = utc_now
    ) -> None:
        self._wheels = wheels
        self._contents = contents
        self._lately = Lately(every, clock)

    async def fetch(self, wheel: WheelReference) -> None:
        """As the fetcher; raises NotFound for one that was built here and is gone: no index has it."""
        await self._claim(wheel)
        try:
            await self._wheels.fetch(wheel)
        except IndexUnavailable:
            if wheel.url:
                raise
            raise NotFound(
                "wheel", f"{wheel.filename}, which was built here, any more: refresh what needs it"
            ) from None

    async def metadata(self, wheel: WheelReference, published: ProjectFile | None) -> bytes:
        """As the fetcher."""
        await self._claim(wheel)
        return await self._wheels.metadata(wheel, published)

    async def _claim(self, wheel: WheelReference) -> None:
        if wheel.digest not in self._lately:
            await self._contents.claim([wheel.digest])
            self._lately.add(wheel.digest)
