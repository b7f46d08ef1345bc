"""Writing what gathers in memory, every few seconds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from storage.errors import StorageError

_EVERY = 5.0
_LAST_WRITE = 5.0

log = structlog.get_logger(__name__)


class NowAndThen:
    """Calls `write` for as long as `gathered` counts something, every so many seconds; at the close once more, and at
    once. What could not be written is for `write` to keep for the next time."""

    def __init__(
        self, what: str, write: Callable[[], Awaitable[None]], gathered: Callable[[], int], every: float = _EVERY
    ) -> None:
        self._what = what
        self._write = write
        self._gathered = gathered
        self._every = every
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def soon(self) -> None:
        """Something has gathered. Waits for nothing."""
        if self._writer is None and not self._closing.is_set():
            self._writer = asyncio.create_task(self._run())

    async def _run(self) -> None:
        closing = False
        while self._gathered() and not closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    closing = await self._closing.wait()
            try:
                await self._write()
            except StorageError as failure:
                log.warning(f"{self._what}.not-written", gathered=self._gathered(), cause=str(failure))
        self._writer = None

    async def close(self) -> None:
        """Write what has gathered."""
        self._closing.set()
        if (writer := self._writer) is not None:
            await asyncio.wait({writer}, timeout=_LAST_WRITE)
            writer.cancel()
