"""What all replicas share: which of it cannot be reached just now, told at once."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from resolver.domain.errors import LockstepError
from resolver.service.index_health import IndexHealth
from resolver.single_flight import SingleFlight
from storage.errors import StorageError

log = structlog.get_logger(__name__)

Ping = Callable[[], Coroutine[Any, Any, None]]


class SharedParts:
    """Asks the stores and others by their names, and knows of the indexes. Each ping has a bound of its own; one that
    takes more than `seconds` counts as unanswered. It goes on all the same, once for all who ask: to cancel that of a
    database may take longer than whoever asks whether this replica is ready has patience.
    """

    def __init__(self, stores: Mapping[str, Ping], health: IndexHealth, *, seconds: float = 0.7) -> None:
        self._stores = stores
        self._health = health
        self._seconds = seconds
        self._pings: SingleFlight[str, bool] = SingleFlight()

    async def degraded(self) -> list[str]:
        """The names of those that cannot be reached. Takes no longer than `seconds`."""
        answers = await asyncio.gather(*(self._answers(part) for part in self._stores))
        away = [part for part, here in zip(self._stores, answers, strict=True) if not here]
        return [*away, *(f"index {name}" for name in self._health.down)]

    async def _answers(self, part: str) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._pings.do(part, lambda: self._pinged(part))
        except TimeoutError:
            log.warning("readiness.degraded", part=part, cause=f"no answer within {self._seconds:g} s")
            return False

    async def _pinged(self, part: str) -> bool:
        try:
            await self._stores[part]()
        except (StorageError, LockstepError) as failure:
            log.warning("readiness.degraded", part=part, cause=str(failure))
            return False
        return True

    async def close(self) -> None:
        """End what is under way."""
        await self._pings.close()
