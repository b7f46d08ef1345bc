"""Replicas whose every call to a store waits for its turn, so that a test decides what happens in which order, and
who is killed before which call. What runs between two calls of a replica is one step to the others."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

_QUIET = 12  # rounds of the event loop in which nothing happens any more


class Killed(BaseException):
    """The replica is gone: nothing of it gets anything done any more."""


class Inline(ThreadPoolExecutor):
    """Threads that are none: what is given to one is done at once, so that every run is the same."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Stage:
    """What the replicas share: who writes to the database in a transaction that stays open, and what is under way."""

    def __init__(self) -> None:
        self.writer: Replica | None = None
        self.busy = 0

    async def settle(self) -> None:
        """Until all that can go on has gone on."""
        quiet = 0
        while quiet < _QUIET:
            await asyncio.sleep(0.0002 if self.busy else 0)
            quiet = 0 if self.busy else quiet + 1


class Replica:
    """A process, as far as its calls to stores go."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._turns: list[tuple[asyncio.Future[None], bool]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.dead = False

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it do this too."""
        self.tasks = [task for task in self.tasks if not task.done()]
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def step(self, number: int) -> bool:
        """Let one of the calls that wait go ahead; False where none can."""
        free = [turn for turn in self._turns if not turn[1] or self._stage.writer in (None, self)]
        if not free:
            return False
        turn = free[number % len(free)]
        self._turns.remove(turn)
        turn[0].set_result(None)
        await self._stage.settle()
        return True

    async def kill(self) -> None:
        """No call goes ahead any more."""
        self.dead = True
        turns, self._turns = self._turns, []
        for future, _ in turns:
            if not future.done():
                future.set_result(None)
        await self._stage.settle()
        await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), 10)

    async def turn(self, *, writes: bool = False) -> None:
        """Wait for the test to say so."""
        if not self.dead:
            turn = asyncio.get_running_loop().create_future(), writes
            self._turns.append(turn)
            try:
                await turn[0]
            finally:
                if turn in self._turns:
                    self._turns.remove(turn)
        if self.dead:
            raise Killed

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[None]:
        self._stage.busy += 1
        try:
            yield
        finally:
            self._stage.busy -= 1

    def gated(self, store: Any, *, database: bool) -> Any:
        """The store, every call to it waiting for its turn."""
        return _Gated(self, self._stage, store, database)


class _Gated:
    def __init__(self, replica: Replica, stage: Stage, store: Any, database: bool) -> None:
        self._replica = replica
        self._stage = stage
        self._store = store
        self._database = database

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._store, name)
        if name in ("removing", "dropping"):
            return functools.partial(self._transaction, inner)
        if name == "local" or inspect.isasyncgenfunction(inner) or name in ("read", "all"):
            return inner
        if not callable(inner):
            return self._replica.gated(inner, database=self._database)
        return functools.partial(self._call, inner, name)

    async def _call(self, inner: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        reads = name in ("size", "layer", "bundle", "page", "held", "is_needed", "unseen", "get")
        await self._replica.turn(writes=self._database and not reads)
        async with self._replica._under_way():
            result = await inner(*args, **kwargs)
        if not self._database and not reads:
            await self._replica.turn()  # so that it can be killed between a change of the blobs and what comes next
        return result

    @asynccontextmanager
    async def _transaction(self, inner: Any, *args: Any) -> AsyncIterator[Any]:
        await self._replica.turn(writes=True)
        block = inner(*args)
        async with self._replica._under_way():
            value = await block.__aenter__()
        self._stage.writer = self._replica
        try:
            yield value
        except BaseException as error:
            async with self._replica._under_way():
                await block.__aexit__(type(error), error, error.__traceback__)
            raise
        else:
            async with self._replica._under_way():
                await block.__aexit__(None, None, None)
        finally:
            self._stage.writer = None
