"""Work that outlives its caller: waited for a while, and then followed by its id."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from resolver.domain.errors import Busy, NotFound
from resolver.service.progress import Progress
from storage.errors import StorageError
from storage.records import OperationRecord
from storage.work_protocols import OperationStore

_BEAT = 10.0
_LOST = timedelta(seconds=60)
_KEPT = timedelta(hours=1)
_RETRY_AFTER = 2.0
_SHUTTING_DOWN = "this process is shutting down"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """The work's answer, as the API shows it."""

    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """How the work failed, as the API shows it (RFC 9457)."""

    problem: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Running:
    """Not done as yet."""

    id: str
    kind: str
    progress: dict[str, Any]


Outcome = Done | Failed
Work = Callable[[Progress], Coroutine[Any, Any, Outcome]]


class Operations:
    """Runs work detached from its callers, at most `limit` pieces at a time.

    An operation that outlasts its caller's patience gets a row, renewed by a heartbeat, so that any replica can tell
    how it stands, and that one whose process died is known to be lost.
    """

    def __init__(self, store: OperationStore, *, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._work: set[asyncio.Task[Outcome]] = set()
        self._keepers: set[asyncio.Task[None]] = set()
        self._followed: dict[str, Progress] = {}
        self._draining = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the service is shutting down."""
        return self._draining.is_set()

    async def run(self, kind: str, work: Work, wait: float) -> Outcome | Running:
        """Start the work and wait for it, `wait` seconds at the most.

        Raises:
            Busy: too much is under way, or the service is shutting down.
        """
        if self._draining.is_set():
            raise Busy(kind, _RETRY_AFTER, _SHUTTING_DOWN)
        if len(self._work) >= self._limit:
            raise Busy(kind, _RETRY_AFTER)
        progress = Progress()
        task = asyncio.create_task(work(progress))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({task, draining}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
        if not task.done():
            return await self._follow(kind, task, progress)
        if task.cancelled():
            raise Busy(kind, _RETRY_AFTER, _SHUTTING_DOWN)
        return task.result()

    async def get(self, identifier: str) -> OperationRecord:
        """The operation as it stands; one whose process went away is reported as failed and worth trying again.

        Raises:
            NotFound: there is none of that id, or it ended long ago.
        """
        record = await self._store.get(identifier)
        if record is None:
            raise NotFound("operation", identifier)
        if record.state == "running" and datetime.now(UTC) - record.updated > _LOST:
            raise Busy(record.kind, _RETRY_AFTER, "the process that was at work on it is gone; ask for it anew")
        progress = self._followed.get(identifier)
        # The row is a heartbeat old.
        return replace(record, progress=progress.to_json()) if progress else record

    async def _follow(self, kind: str, task: asyncio.Task[Outcome], progress: Progress) -> Running:
        now = datetime.now(UTC)
        record = OperationRecord(
            id=uuid.uuid4().hex, kind=kind, state="running", created=now, updated=now, progress=progress.to_json()
        )
        await self._store.put(record)
        self._followed[record.id] = progress
        keeper = asyncio.create_task(self._keep(record, task, progress))
        self._keepers.add(keeper)
        keeper.add_done_callback(lambda _: self._followed.pop(record.id))
        keeper.add_done_callback(self._keepers.discard)
        return Running(record.id, record.kind, record.progress)

    async def _keep(self, record: OperationRecord, task: asyncio.Task[Outcome], progress: Progress) -> None:
        """Renew the row until the work ends, then write how."""
        while not task.done():
            await asyncio.wait({task}, timeout=_BEAT)
            if not task.done():
                await self._put(replace(record, updated=datetime.now(UTC), progress=progress.to_json()))
        if task.cancelled():
            # Shutting down: handed back at once, as what no heartbeat renews is in the end.
            await self._put(replace(record, updated=datetime.now(UTC) - _LOST))
            return
        outcome = task.result()
        ended = replace(
            record,
            state="succeeded" if isinstance(outcome, Done) else "failed",
            updated=datetime.now(UTC),
            progress=progress.to_json(),
            result=outcome.result if isinstance(outcome, Done) else None,
            problem=outcome.problem if isinstance(outcome, Failed) else None,
        )
        await self._put(ended)
        await self._store.delete_before(datetime.now(UTC) - _KEPT)

    async def _put(self, record: OperationRecord) -> None:
        try:
            await self._store.put(record)
        except StorageError as failure:
            # The work itself goes on; a row that is not renewed reads as lost, which makes the client ask again.
            log.warning("operation.not-recorded", operation=record.id, cause=str(failure))

    async def close(self, grace: float) -> None:
        """Take no new work; give what is under way `grace` seconds, then end it."""
        self._draining.set()
        if self._work:
            log.info("operations.draining", under_way=len(self._work), grace=grace)
            await asyncio.wait(self._work, timeout=grace)
        for task in list(self._work):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*self._work, *self._keepers, return_exceptions=True)
