"""Turns, shared out fairly: one namespace's broken deploys, or one greedy client, do not starve the rest."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from resolver.domain.errors import Busy


class FairTurns:
    """At most `parallel` pieces of work at once. Those who wait are let in one namespace after the other (or one client
    after the other), and in order within each; at most `queue` wait in all, and at most half of that from one
    namespace. Nobody waits longer than `patience` seconds (None: as long as it takes)."""

    def __init__(
        self,
        *,
        parallel: int,
        queue: int,
        what: str = "making locks",
        patience: float | None = None,
        retry_after: float = 5.0,
    ) -> None:
        self._what = what
        self._parallel = parallel
        self._free = parallel
        self._queue = queue
        self._patience = patience
        self._retry_after = retry_after
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many have their turn."""
        return self._parallel - self._free

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs. Raises Busy where the queue is full, or the wait long."""
        await self._enter(namespace)
        try:
            yield
        finally:
            self._pass_on()

    async def _enter(self, namespace: str) -> None:
        if self._free:
            self._free -= 1
            return
        own = self._waiting.get(namespace, ())
        if self.waiting >= self._queue or len(own) >= max(1, self._queue // 2):
            raise Busy(self._what, self._retry_after)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            self._leave(namespace, turn)
            if isinstance(error, TimeoutError):
                raise Busy(self._what, self._retry_after) from error
            raise

    def _leave(self, namespace: str, turn: asyncio.Future[None]) -> None:
        if not turn.cancelled():
            self._pass_on()  # it had been given the turn at that very moment
            return
        waiting = self._waiting.get(namespace, deque())
        if turn in waiting:
            waiting.remove(turn)
        if not waiting:
            self._waiting.pop(namespace, None)

    def _pass_on(self) -> None:
        while self._waiting:
            namespace, waiting = self._waiting.popitem(last=False)
            turn = waiting.popleft()
            if waiting:
                self._waiting[namespace] = waiting  # behind the other namespaces
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
