"""A client's side of HTTP/1.1 that costs less than what it measures: on uvloop, into one buffer, hashed as it comes."""

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

_BUFFER = memoryview(bytearray(256 << 10))
"""For all connections: what was received is taken before anything else is."""
_END = b"\r\n\r\n"


class Failed(Exception):
    """A replica did not get what it asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case), and the content: whole where it was to be kept, its digest where not."""

    status: int
    headers: dict[str, str]
    content: bytes
    digest: str


def run(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def request(method: str, path: str, content: bytes = b"") -> bytes:
    """A request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: storm\r\n"
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


class Connection(asyncio.BufferedProtocol):
    """One connection, opened by its first request; one request at a time. `received`: bytes of contents so far."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._head = b""
        self._left = -1  # bytes of the content; -1: the head has not come as yet
        self._kept: list[bytes] | None = None
        self.received = 0

    async def ask(self, request: bytes, *, keep: bool = False) -> Answer:
        """The answer to this request. Raises Failed where the connection ends before it."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            self._transport, _ = await loop.create_connection(lambda: self, *self._address)
        self._answered, self._kept = loop.create_future(), [] if keep else None
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        piece = _BUFFER[:nbytes]
        if self._left < 0:
            self._head += piece
            end = self._head.find(_END)
            if end < 0:
                return
            piece = memoryview(self._head)[end + len(_END) :]
            self._begin(self._head[:end].decode().split("\r\n"))
        self._left -= len(piece)
        self.received += len(piece)
        if self._kept is None or self._status != 200:
            self._hasher.update(piece)
        else:
            self._kept.append(bytes(piece))
        if not self._left:
            self._end()

    def _begin(self, lines: list[str]) -> None:
        self._head = b""
        self._status = int(lines[0].split()[1])
        self._headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self._left = int(self._headers["content-length"])
        self._hasher = hashlib.sha256()

    def _end(self) -> None:
        self._left = -1
        answer = Answer(self._status, self._headers, b"".join(self._kept or ()), f"sha256:{self._hasher.hexdigest()}")
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(Failed(f"the connection ended before the answer: {error}"))
