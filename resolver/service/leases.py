"""One replica at a time for a piece of work, and an heir for a replica that dies at it."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from resolver.domain.errors import TimedOut
from storage.errors import LeaseLost, StorageError
from storage.records import Lease
from storage.work_protocols import LeaseStore

V = TypeVar("V")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0

log = structlog.get_logger(__name__)


class Alone:
    """For a service of one process: whoever asks does the work, once single flight has let it through."""

    async def once(
        self, name: str, look: Callable[[], Awaitable[V | None]], work: Callable[[Lease | None], Awaitable[V]]
    ) -> V:
        """See Exclusive."""
        found = await look()
        return await work(None) if found is None else found


class Leased:
    """For several replicas: the work is done under a lease, renewed by a heartbeat.

    Those who wait look for its result by polling, with pauses that grow: a notification would not pass a transaction
    pooler. A lease lasts `seconds` without a heartbeat; `patience` seconds is the longest that one waits for a turn.
    """

    def __init__(
        self,
        store: LeaseStore,
        *,
        seconds: float = 15.0,
        patience: float = 900.0,
        taken_over: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._patience = patience
        self._taken_over = taken_over

    async def once(
        self, name: str, look: Callable[[], Awaitable[V | None]], work: Callable[[Lease | None], Awaitable[V]]
    ) -> V:
        """See Exclusive. A lease that is lost midway ends the work; then it is looked for and waited for again."""
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while time.monotonic() < deadline:
            found = await look()
            if found is not None:
                return found
            # A holder's name is good for one lease: a process that comes back late is not taken for its own heir.
            lease = await self._store.acquire(name, uuid.uuid4().hex, self._seconds)
            if lease is None:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if lease.takeover:
                self._taken_over()
                log.warning("lease.taken-over", lease=name)
            try:
                async with self._held(lease):
                    # Another may have ended the work between the look and the lease.
                    found = await look()
                    return await work(lease) if found is None else found
            except LeaseLost:
                log.warning("lease.lost", lease=name)
        raise TimedOut(f"waiting for {name.partition(':')[0]} elsewhere", self._patience)

    async def attempt(self, name: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Do the work if nobody else is at it; returns whether it was done here."""
        lease = await self._store.acquire(name, uuid.uuid4().hex, self._seconds)
        if lease is None:
            return False
        async with self._held(lease):
            await work()
        return True

    @asynccontextmanager
    async def _held(self, lease: Lease) -> AsyncIterator[None]:
        """Renew the lease while the block runs. Raises LeaseLost, and ends the block, once it is another's."""
        block = asyncio.current_task()
        lost = False

        async def beat() -> None:
            nonlocal lost
            renewed = time.monotonic()
            while not lost:
                await asyncio.sleep(self._seconds / 3)
                try:
                    lost = not await self._store.renew(lease, self._seconds)
                    renewed = time.monotonic()
                except StorageError:
                    # The database may be back before the lease runs out.
                    lost = time.monotonic() - renewed > self._seconds
            if block is not None:
                block.cancel()

        heart = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if lost and block is not None and block.uncancel() == 0:
                raise LeaseLost(lease.name) from None
            raise
        finally:
            heart.cancel()
            if not lost:
                await asyncio.shield(self._release(lease))

    async def _release(self, lease: Lease) -> None:
        try:
            await self._store.release(lease)
        except StorageError as failure:
            # It runs out by itself.
            log.warning("lease.not-released", lease=lease.name, cause=str(failure))
