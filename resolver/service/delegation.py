"""Cold work done by others: an API process only answers, a worker process does what it cannot find done.

The API process decides as every other does, with an Exclusive that looks for a result and never works for one. What is
not there becomes a job in the database; the worker makes the same decision, and does the work.
"""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from resolver.domain.errors import Busy, LockstepError, TimedOut
from resolver.domain.outcomes import Refusal
from resolver.domain.requests import ResolveRequest, Workload
from resolver.domain.targets import TargetEnvironment
from resolver.service.leases import Leased
from resolver.service.progress import Progress
from resolver.service.requests import Requests, to_json
from resolver.service.resolve import Answer, Resolving
from storage.errors import StorageError
from storage.records import JobRecord, Lease
from storage.work_protocols import JobStore

V = TypeVar("V")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_RETRY_AFTER = 5.0
_FAILURES_KEPT = timedelta(seconds=60)
_FAILURE_STANDS = timedelta(seconds=3)

log = structlog.get_logger(__name__)


class ColdWorkNeeded(LockstepError):
    """What is asked for is not there, and this process does no cold work."""


class WorkFailed(LockstepError):
    """A worker could not do it; `problem` is what it would have answered."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem["detail"]))
        self.problem = problem


class Elsewhere:
    """The Exclusive of a process that does no cold work."""

    async def once(
        self, name: str, look: Callable[[], Awaitable[V | None]], work: Callable[[Lease | None], Awaitable[V]]
    ) -> V:
        """What is there. Raises ColdWorkNeeded where nothing is."""
        found = await look()
        if found is None:
            raise ColdWorkNeeded(name)
        return found


class Answering(Protocol):
    """Answers requests, wherever the work is done."""

    def answer(self, request: ResolveRequest, progress: Progress) -> Coroutine[Any, Any, Answer | Refusal]:
        """One lock and one bundle, the same for every replica of the workload's revision."""
        ...


class Delegating:
    """Answers what is there, and has workers do what is not: at most `most` jobs wait; `patience` is in seconds."""

    def __init__(self, resolving: Resolving, jobs: JobStore, *, most: int, patience: float = 900.0) -> None:
        self._resolving = resolving
        self._jobs = jobs
        self._most = most
        self._patience = patience

    async def answer(self, request: ResolveRequest, progress: Progress) -> Answer | Refusal:
        """See Resolving.answer.

        Raises:
            Busy: too many jobs wait.
            TimedOut: no worker came to it.
            WorkFailed: one did, and could not.
        """
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            try:
                return await self._resolving.answer(request, progress)
            except ColdWorkNeeded:
                await self._done(_job(request), deadline)
        raise TimedOut("waiting for a worker", self._patience)

    async def _done(self, job: JobRecord, deadline: float) -> None:
        known = await self._jobs.get(job.id)
        if (
            known is not None
            and known.problem is not None
            and job.created - (known.failed or job.created) < _FAILURE_STANDS
        ):
            # Fresh, so another caller's failure is this one's answer too.
            raise WorkFailed(known.problem)
        if not await self._jobs.put(job, self._most):
            raise Busy("cold work", _RETRY_AFTER)
        pause = _FIRST_PAUSE
        while time.monotonic() < deadline:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
            known = await self._jobs.get(job.id)
            if known is None:
                return
            if known.problem is not None:
                raise WorkFailed(known.problem)


class Worker:
    """Takes jobs, `parallel` at a time, namespaces in turn; `explain` turns a failure or a refusal into the problem
    that the API shows."""

    def __init__(
        self,
        resolving: Resolving,
        requests: Requests,
        jobs: JobStore,
        leased: Leased,
        explain: Callable[[Exception | Refusal], dict[str, Any]],
        *,
        parallel: int,
    ) -> None:
        self._resolving = resolving
        self._requests = requests
        self._jobs = jobs
        self._leased = leased
        self._explain = explain
        self._parallel = parallel
        self._at_work: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Work until cancelled; what is under way then is left to others."""
        try:
            while True:
                try:
                    await self._take()
                except StorageError as failure:
                    log.warning("worker.no-jobs", cause=str(failure))
                await asyncio.sleep(_LONGEST_PAUSE * random.uniform(0.2, 0.4))  # noqa: S311 - jitter
        finally:
            tasks = list(self._at_work.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        # More than there are places for: other workers may have the first ones.
        for job in await self._jobs.waiting(4 * self._parallel):
            if len(self._at_work) >= self._parallel:
                return
            if job.id not in self._at_work:
                self._at_work[job.id] = task = asyncio.create_task(self._attempt(job))
                task.add_done_callback(partial(self._forget, job.id))

    def _forget(self, name: str, _: asyncio.Task[None]) -> None:
        self._at_work.pop(name, None)

    async def _attempt(self, job: JobRecord) -> None:
        try:
            await self._leased.attempt(f"job:{job.id}", lambda: self._do(job))
        except StorageError as failure:
            # It waits on, for whoever has a database.
            log.warning("worker.gave-up", job=job.id, cause=str(failure))

    async def _do(self, job: JobRecord) -> None:
        if await self._jobs.get(job.id) is None:
            return
        try:
            workload = Workload(**job.request["workload"]) if job.request["workload"] else None
            request = self._requests.again(job.request, TargetEnvironment.from_name(job.target), workload)
            found: Answer | Refusal | Exception = await self._resolving.answer(request, Progress())
        except Exception as failure:
            log.warning("worker.failed", job=job.id, exc_info=failure)
            found = failure
        if isinstance(found, Answer):
            await self._jobs.done(job.id)
        else:
            now = datetime.now(UTC)
            await self._jobs.fail(job.id, self._explain(found), now, now - _FAILURES_KEPT)


def _job(request: ResolveRequest) -> JobRecord:
    asked = to_json(request) | {"workload": asdict(request.workload) if request.workload else None}
    text = json.dumps([request.target.name, asked], sort_keys=True)
    return JobRecord(
        id=hashlib.sha256(text.encode()).hexdigest(),
        namespace=request.namespace or "",
        target=request.target.name,
        request=asked,
        created=datetime.now(UTC),
    )
