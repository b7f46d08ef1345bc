"""Turns for cold work, shared out fairly: one namespace's broken deploys do not starve the rest."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from resolver.domain.errors import Busy

_RETRY_AFTER = 5.0


class FairTurns:
    """At most `parallel` pieces of work at once. Those who wait are let in one namespace after the other, and in order
    within each; at most `queue` wait in all, and at most half of that from one namespace."""

    def __init__(self, *, parallel: int, queue: int) -> None:
        self._free = parallel
        self._queue = queue
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs. Raises Busy where the queue is full."""
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
        if sum(map(len, self._waiting.values())) >= self._queue or len(own) >= max(1, self._queue // 2):
            raise Busy("making locks", _RETRY_AFTER)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

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
