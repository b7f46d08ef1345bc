"""A TCP proxy on 127.0.0.1 that does to connections what networks do to them, at will, those that are open too."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self, TypeVar

T = TypeVar("T")

Mode = Literal["pass", "refuse", "reset", "hang", "drip", "cut"]

_CHUNK = 64 * 1024
_DRIP_SECONDS = 0.3
_ABORTIVE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time; closing then sends RST


class FaultProxy:
    """Stands before `port` of 127.0.0.1, in a thread of its own while its context is open.

    `pass` relays · `refuse` listens no more, and drops what is open · `reset` accepts, and resets at once, what is open
    too · `hang` accepts and falls silent, what is open too, until the mode changes; then what was held goes on ·
    `drip` gives an answer's bytes one by one · `cut` resets a connection after `cut_after` more bytes of its answers.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._mode: Mode = "pass"
        self._cut_after = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()
        # Bound, and never listening: nobody else gets the port while nobody listens on it.
        self._place = _bound(0)
        self.port: int = self._place.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    def set(self, mode: Mode, cut_after: int = 0) -> None:
        """From now on; when this returns, the mode holds for new connections and open ones."""
        self._do(lambda: self._set(mode, cut_after))

    @contextmanager
    def fault(self, mode: Mode, cut_after: int = 0) -> Iterator[None]:
        """The mode for the length of the block; `pass` after it."""
        self.set(mode, cut_after)
        try:
            yield
        finally:
            self.set("pass")

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def doing() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(doing(), self._loop).result(10)

    async def _set(self, mode: Mode, cut_after: int) -> None:
        self._mode, self._cut_after = mode, cut_after
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode in ("refuse", "reset"):
            for writer in list(self._open):
                _reset(writer)
        if mode == "refuse" and self._server is not None:
            server, self._server = self._server, None
            server.close()
        elif mode != "refuse" and self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, sock=_bound(self.port))

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.current_task()
        assert relay is not None
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._relay(reader, writer)
        finally:
            if self._mode in ("reset", "cut"):
                _reset(writer)
            else:
                writer.close()
            self._open.discard(writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._mode == "hang":
            await self._changed.wait()
        if self._mode in ("refuse", "reset"):
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open.add(far_writer)
        ways = [
            asyncio.ensure_future(self._pass_on(reader, far_writer, answers=False)),
            asyncio.ensure_future(self._pass_on(far_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()
            self._open.discard(far_writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        """One way of a connection, to its end."""
        cut: asyncio.Event | None = None  # that since which `left` is counted
        left = 0
        while chunk := await reader.read(_CHUNK):
            while chunk:
                mode, piece = self._mode, chunk
                if mode == "hang":
                    await self._changed.wait()
                    continue
                if mode == "drip" and answers:
                    await asyncio.sleep(_DRIP_SECONDS)
                    piece = chunk[:1]
                elif mode == "cut" and answers:
                    if cut is not self._changed:
                        cut, left = self._changed, self._cut_after
                    piece = chunk[:left]
                    left -= len(piece)
                writer.write(piece)
                await writer.drain()
                if mode == "cut" and answers and len(piece) < len(chunk):
                    return
                chunk = chunk[len(piece) :]


def _bound(port: int) -> socket.socket:
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", port))
    return place


def _reset(writer: asyncio.StreamWriter) -> None:
    place: socket.socket | None = writer.get_extra_info("socket")
    if place is not None and place.fileno() >= 0:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
    writer.transport.abort()
