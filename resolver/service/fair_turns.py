"""Turns, shared out fairly: one namespace's broken deploys, or one greedy client, do not starve the rest."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from resolver.domain.errors import Busy


class FairTurns:
    """At most `parallel` pieces of work at once. Those who wait are let in one namespace after the other (or one client
    after the other), and in order within each. Nobody waits longer than `patience` seconds (None: as long as it takes).

    At most `queue` wait. One alone may be all of these: a thousand Pods behind one proxy are one client. But it shuts
    nobody out: where the queue is full, whoever has the most in it gives the latest of them up for one who has less.
    """

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
        self._count = 0

    @property
    def taken(self) -> int:
        """How many have their turn."""
        return self._parallel - self._free

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return self._count

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
        if self._count >= self._queue:
            self._make_room(namespace)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        self._count += 1
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            self._leave(namespace, turn)
            if isinstance(error, TimeoutError):
                raise self._busy() from error
            raise

    def _make_room(self, namespace: str) -> None:
        longest = max(self._waiting, key=lambda name: len(self._waiting[name]))
        if len(self._waiting[longest]) <= len(self._waiting.get(namespace, ())) + 1:
            raise self._busy()
        turn = self._waiting[longest].pop()
        self._count -= 1
        if not turn.done():
            turn.set_exception(self._busy())

    def _busy(self) -> Busy:
        return Busy(self._what, self._retry_after)

    def _leave(self, namespace: str, turn: asyncio.Future[None]) -> None:
        if not turn.cancelled():
            if turn.exception() is None:
                self._pass_on()  # it had been given the turn at that very moment
            return
        waiting = self._waiting.get(namespace, deque())
        if turn in waiting:
            waiting.remove(turn)
            self._count -= 1
        if not waiting:
            self._waiting.pop(namespace, None)

    def _pass_on(self) -> None:
        while self._waiting:
            namespace, waiting = self._waiting.popitem(last=False)
            turn = waiting.popleft()
            self._count -= 1
            if waiting:
                self._waiting[namespace] = waiting  # behind the other namespaces
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
