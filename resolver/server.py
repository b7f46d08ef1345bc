"""The HTTP server around the application: what it listens on, and how it stops."""

import asyncio
import math
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

import structlog
import uvicorn
from starlette.types import ASGIApp

from resolver.service.operations import Operations

log = structlog.get_logger(__name__)

_KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: a client that unpacks for a while finds it again."""
_BACKLOG = 2048
_ACCEPTING = 32
"""Connections that are accepted in one turn of the event loop. It takes one at a time from each descriptor that it
listens on (libuv, since 1.45), and in a storm a turn answers every connection that is there already: the rest of a
thousand would wait outside for longer than they have patience. So each socket is listened on under several."""


@contextmanager
def listening_on(listen: str) -> Iterator[list[socket.socket]]:
    """The sockets of `host:port`, each under as many descriptors as it is to be listened on. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    with ExitStack() as stack:
        sockets = []
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, address in dict.fromkeys((family, address) for family, *_, address in found):
                bound = stack.enter_context(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
                sockets += [bound, *(stack.enter_context(bound.dup()) for _ in range(_ACCEPTING - 1))]
        except OSError as error:
            raise ValueError(f"cannot listen on {listen}: {error.strerror}") from error
        yield sockets


class Server(uvicorn.Server):
    """Stops taking new work as soon as it is told to stop, not only once the last connection is closed."""

    def __init__(self, app: ASGIApp, operations: Operations, grace: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=_KEEP_ALIVE,
                backlog=_BACKLOG,
            )
        )
        self._operations = operations
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        await super().startup(sockets)
        for host, port, *_ in dict.fromkeys(each.getsockname() for each in sockets or ()):
            log.info("service.listening", host=host, port=port, version=version("lockstep"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        # It listens until the work is done or handed back: who follows an operation gets its answer, and who comes
        # anew hears that this process is not ready. What is left of the grace is for downloads under way.
        started = time.monotonic()
        await self._operations.close(self._grace)
        self.config.timeout_graceful_shutdown = max(1, math.ceil(self._grace - (time.monotonic() - started)))
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server, whose own raises the signal once more at the end: that would end the process before its
        parts are closed."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)
