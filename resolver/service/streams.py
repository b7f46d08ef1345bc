"""Sending large blobs: how many at once, and how much of them is held in memory meanwhile."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from resolver.domain.errors import Busy
from resolver.service.fair_turns import FairTurns

_LEAST = 64 << 10
_RETRY_AFTER = 2.0
_HELD = 3  # chunks of a stream in memory: one on its way out, the next, and what it is read into


class Streams:
    """Turns for streams, one client after the other. `memory` is for all streams together: each has its part of it, and
    reads by `chunk` bytes. `refused` is told of each that got no turn."""

    def __init__(
        self,
        *,
        parallel: int,
        queue: int,
        patience: float,
        memory: int,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.chunk = max(_LEAST, min(1 << 20, memory // (parallel * _HELD)))
        self._turns = FairTurns(
            parallel=parallel, queue=queue, what="sending blobs", patience=patience, retry_after=_RETRY_AFTER
        )
        self._refused = refused

    @property
    def under_way(self) -> int:
        """How many are being sent."""
        return self._turns.taken

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._turns.waiting

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of this client's, and keep it while the block runs. Raises Busy."""
        entered = False
        try:
            async with self._turns.turn(client):
                entered = True
                yield
        except Busy:
            if not entered:
                self._refused()
            raise
