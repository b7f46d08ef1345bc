"""What the first request would otherwise wait for, done once the service can answer and nobody waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio.lowlevel
import structlog

from resolver.domain.errors import LockstepError
from storage.errors import StorageError

log = structlog.get_logger(__name__)


Cold = dict[str, Callable[[], Awaitable[None]]]
"""The parts by their names, and what makes each of them ready."""


async def warm_up(parts: Cold) -> None:
    """Make the parts ready. One that cannot be is told in the log, and by the first request that needs it."""
    await anyio.lowlevel.checkpoint()  # loads what an HTTP client loads with its first connection
    await asyncio.gather(*(_made_ready(name, make_ready) for name, make_ready in parts.items()))


async def _made_ready(name: str, make_ready: Callable[[], Awaitable[None]]) -> None:
    try:
        await make_ready()
    except (LockstepError, StorageError) as failure:
        log.warning("service.not-warm", part=name, cause=str(failure))
