"""Collecting garbage: which bytes are kept, and how the others go.

Locks and pins are small and stay; only pins of workloads that nobody has seen for a long time are forgotten. Bytes go
once nothing holds them. What holds a bundle, and with it its layers, their listings and the wheels that they come from:

- a pin of one of its workload's newest revisions, so that a rollback finds its bytes; or a hold;
- a use not long ago.

What a pin needs again comes back: the wheels by their hashes, the layers out of them, the same bytes.

A collection goes through all blobs and marks what nothing holds. What bears a mark for longer than the grace goes:
first the records that need it, then the blob, then the row. Whoever comes to rely on a blob takes the mark away. So the
grace only spares those who are at work from starting anew; safety rests on the claims (storage/metadata/contents.py).
Any number of collections may run at once, and each may be killed at any point: the next one goes on from there.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from resolver.service.uses import Clock, utc_now
from storage.blob_protocols import BlobJanitor
from storage.content import Digest
from storage.errors import StorageError, StorageUnavailable
from storage.protocols import RetentionStore, WorkloadStore
from storage.records import BlobInfo, ContentRecord, Keep

_PAGE = 500
_RELEASED = 200  # contents looked at again in one transaction
_REMOVED = 32  # blobs deleted in one transaction, during which others that write may have to wait
_REMOVAL = 8.0  # seconds that such a transaction may take: databases end those that idle for longer
_HALVINGS = 12  # of the time between the grace and the longest that a use holds

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept: `revisions` of each workload, `used` how long after its last use, a workload's pins how long after
    it was last seen (`seen`); `grace` between mark and removal; `most` bytes (None: any number)."""

    revisions: int
    used: timedelta
    seen: timedelta
    grace: timedelta
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did, or (`dry_run`) would do: blobs newly `marked`, blobs `removed` and their `freed` bytes,
    `kept` blobs and bytes, workloads `forgotten`. `over`: bytes above the cap that are held all the same."""

    dry_run: bool
    marked: int = 0
    removed: int = 0
    freed: int = 0
    kept: int = 0
    kept_bytes: int = 0
    forgotten: int = 0
    over: int = 0


class Retaining:
    """Collects garbage. `freed` is told of bytes as they go."""

    def __init__(
        self,
        blobs: BlobJanitor,
        retention: RetentionStore,
        workloads: WorkloadStore,
        rules: Rules,
        *,
        freed: Callable[[int], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        self._blobs = blobs
        self._retention = retention
        self._workloads = workloads
        self._rules = rules
        self._freed = freed
        self._clock = clock

    async def collect(self, *, dry_run: bool = False) -> Collected:
        """One collection; a dry run changes nothing. Raises what the stores raise; what was done stays done."""
        run = _Run(self._blobs, self._retention, self._rules, self._clock(), self._freed, dry_run)
        forgotten = await self._forget(dry_run)
        await run.look()
        await run.go_through()
        await run.cap()
        collected = run.result(forgotten)
        log.info("gc.done", **{name: getattr(collected, name) for name in Collected.__slots__})
        return collected

    async def _forget(self, dry_run: bool) -> int:
        before = self._clock() - max(self._rules.seen, self._rules.grace)
        if dry_run:
            return len(await self._workloads.unseen(before, 1_000_000))
        forgotten = 0
        while unseen := await self._workloads.unseen(before, _PAGE):
            gone = [await self._workloads.forget(namespace, workload, before) for namespace, workload in unseen]
            forgotten += sum(gone)
            if not any(gone):
                break
        return forgotten


async def collect_again_and_again(retaining: Retaining, every: float) -> None:
    """A collection about every so many seconds, until it is cancelled; never at once, as replicas start together."""
    while True:
        await asyncio.sleep(every * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
        try:
            await retaining.collect()
        except StorageError as failure:
            log.warning("gc.failed", cause=str(failure))


class _Run:
    """One collection, step by step."""

    def __init__(
        self,
        blobs: BlobJanitor,
        retention: RetentionStore,
        rules: Rules,
        now: datetime,
        freed: Callable[[int], None],
        dry_run: bool,
    ) -> None:
        self._blobs = blobs
        self._retention = retention
        self._rules = rules
        self._now = now
        self._tell = freed
        self._dry_run = dry_run
        self._keep = Keep(rules.revisions, now - max(rules.used, rules.grace))
        self._sizes: dict[Digest, int] = {}
        self._held: set[Digest] = set()
        self._marked = 0
        self._gone: set[Digest] = set()

    async def look(self) -> None:
        """See which blobs there are; those that nobody ever claimed bear a mark from now on."""
        batch: list[BlobInfo] = []
        async for blob in self._blobs.all():
            self._sizes[blob.digest] = blob.size
            batch.append(blob)
            if len(batch) == _PAGE:
                await self._adopt(batch)
                batch = []
        await self._adopt(batch)

    async def go_through(self) -> None:
        """Mark what nothing holds, take marks from what something holds again, remove what bears one for long."""
        held = self._held = await self._retention.held(self._keep)
        long_ago = self._now - self._rules.grace
        unseen = set(self._sizes)
        async for page in self._pages():
            unseen.difference_update(record.digest for record in page)
            loose = [record for record in page if record.digest not in held]
            fresh = [record.digest for record in loose if record.marked is None]
            self._marked += len(fresh)
            if not self._dry_run:
                await self._retention.mark(fresh, self._now)
                back = [record.digest for record in page if record.digest in held and record.marked is not None]
                await self._retention.mark(back, None)
            due = [record.digest for record in loose if record.marked is not None and record.marked <= long_ago]
            await self._remove(due, self._keep, long_ago)
        if self._dry_run:
            self._marked += len(unseen)

    async def cap(self) -> None:
        """Where what is held is more than it may be, the bundles that only their use holds go at once, those first that
        were used the longest ago; never one that was used within the grace."""
        most, held = self._rules.most, self._held
        if most is None or self._bytes(held) <= most:
            return
        keep = await self._tighter(most)
        self._held = await self._retention.held(keep)
        going = sorted(held - self._held)
        for batch in _batches(going, _PAGE):
            if not self._dry_run:
                await self._retention.mark(batch, self._now)
            await self._remove(batch, keep, self._now)

    def result(self, forgotten: int) -> Collected:
        """What came of it."""
        kept = self._sizes.keys() - self._gone
        return Collected(
            dry_run=self._dry_run,
            marked=self._marked,
            removed=len(self._gone),
            freed=self._bytes(self._gone),
            kept=len(kept),
            kept_bytes=self._bytes(kept),
            forgotten=forgotten,
            over=0 if self._rules.most is None else max(0, self._bytes(self._held) - self._rules.most),
        )

    async def _tighter(self, most: int) -> Keep:
        """The rules that hold as many of the latest uses as there is room for."""
        too_early, latest = self._keep.used_after, self._now - self._rules.grace
        for _ in range(_HALVINGS):
            middle = too_early + (latest - too_early) / 2
            if self._bytes(await self._retention.held(Keep(self._rules.revisions, middle))) > most:
                too_early = middle
            else:
                latest = middle
        return Keep(self._rules.revisions, latest)

    async def _adopt(self, blobs: Collection[BlobInfo]) -> None:
        if not self._dry_run:
            self._marked += await self._retention.adopt(blobs, self._now)

    async def _remove(self, digests: list[Digest], keep: Keep, marked_by: datetime) -> None:
        if self._dry_run:
            self._gone.update(digest for digest in digests if digest in self._sizes)
            return
        for batch in _batches(digests, _RELEASED):
            released = await self._retention.release(batch, keep, marked_by)
            for few in _batches(released, _REMOVED):
                async with self._retention.removing(few, marked_by) as going:
                    await self._delete([record.digest for record in going])
                gone = {record.digest for record in going} & self._sizes.keys()
                self._gone |= gone
                self._tell(self._bytes(gone))

    async def _delete(self, digests: list[Digest]) -> None:
        try:
            # Nothing of it may go on once the transaction is over.
            async with asyncio.timeout(_REMOVAL), asyncio.TaskGroup() as deleting:
                for digest in digests:
                    deleting.create_task(self._blobs.delete(digest))
        except TimeoutError as failure:
            raise StorageUnavailable(f"{len(digests)} blobs were not deleted within {_REMOVAL:g} s") from failure
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _pages(self) -> AsyncIterator[list[ContentRecord]]:
        last: Digest | None = None
        while page := await self._retention.page(last, _PAGE):
            yield page
            last = page[-1].digest

    def _bytes(self, digests: Collection[Digest]) -> int:
        return sum(self._sizes.get(digest, 0) for digest in digests)


def _batches(digests: list[Digest], size: int) -> Iterator[list[Digest]]:
    for start in range(0, len(digests), size):
        yield digests[start : start + size]
