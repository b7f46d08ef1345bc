"""A bounded set of worker processes, each in a process group of its own.

Not a ProcessPoolExecutor: there, ending one piece of work (a time-out, a caller that goes away) means killing a worker,
which fails all the others' work too; and each of its workers imports the service's main module first.
"""

import asyncio
import contextlib
import heapq
import itertools
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import structlog

from resolver.bundles.job import LENGTH
from resolver.domain.errors import Busy

_START = "import sys; sys.path[:] = sys.argv[1].split(':'); from resolver.bundles.worker import main; main()"
# What a program needs to start and no more: a worker reads what strangers wrote, so it gets no credential.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")
# A large job that is taken up last is waited for alone: so a job goes before those that came up to so many seconds
# before it, by its size. Nobody is passed over for longer than that.
_BYTES_A_SECOND = 4e6
_MOST_SECONDS = 10.0

log = structlog.get_logger(__name__)


class WorkerLost(Exception):
    """A worker ended before it answered, with this status (negative: the signal)."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"the worker process ended with status {status}")
        self.status = status


class WorkerPool:
    """At most `workers` jobs at a time, each in a process; the processes are kept for the next job."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._turns = _Turns(workers)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Start the processes in the background, so that the first jobs need not wait for all of it."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            while len(self._idle) + len(self._busy) < self._workers and not self._closed:
                self._idle.append(await _Worker.start())
        except OSError as failure:  # the first jobs will try too, and tell who asked
            log.warning("workers.not-started", cause=str(failure))

    async def run(self, job: bytes, seconds: float, size: int = 0) -> bytes:
        """The answer to a job (one line, without its end) over `size` bytes. Waits for a free worker first.

        When the caller is cancelled, or the time is up, the worker and all that it started are gone on return.

        Raises:
            TimeoutError: the job took more than `seconds`.
            WorkerLost: the worker ended on its own.
            Busy: the pool is closed.
        """
        async with self._turns.turn(size):
            worker = await self._take()
            self._busy.add(worker)
            try:
                if self._closed:
                    raise Busy("building layers", 1.0)
                async with asyncio.timeout(seconds):
                    answer = await worker.ask(job)
            except BaseException:
                await asyncio.shield(worker.end())
                raise
            finally:
                self._busy.discard(worker)
            self._idle.append(worker)
            return answer

    async def close(self) -> None:
        """End all workers, also those at work."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait({self._starting})
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(worker.end() for worker in workers))

    async def _take(self) -> "_Worker":
        if not self._idle and self._starting is not None:
            await asyncio.wait({self._starting})
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
        return await _Worker.start()


class _Turns:
    """At most `parallel` at a time; those who wait are let in as they came, the large ones somewhat sooner."""

    def __init__(self, parallel: int) -> None:
        self._free = parallel
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    @contextlib.asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            since = time.monotonic() - min(size / _BYTES_A_SECOND, _MOST_SECONDS)
            heapq.heappush(self._waiting, (since, next(self._count), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._pass_on()  # it had been given the turn at that very moment
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Worker:
    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "_Worker":
        path = ":".join(entry for entry in sys.path if entry)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-X", "utf8", "-c", _START, path),
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,
            env=environment,
            start_new_session=True,
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, job: bytes) -> bytes:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        try:
            self._process.stdin.write(job + b"\n")
            await self._process.stdin.drain()
            length = await self._process.stdout.readexactly(LENGTH)
            return await self._process.stdout.readexactly(int.from_bytes(length, "big"))
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
            raise WorkerLost(await self._process.wait()) from None

    async def end(self) -> None:
        # Also where the worker itself is gone: what it started may still be there.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
