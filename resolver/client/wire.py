"""HTTP/1.1 (RFC 9112) as far as a fetch needs it: `http.client` costs more CPU to import than a small fetch does.

The head of an answer is read strictly; what is not well-formed raises Malformed, and its connection is not used again.
The content is received straight into the caller's buffer.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext
    from typing import Any

_LONGEST_HEAD = 64 * 1024
_RECEIVED = 16 * 1024
_DIGITS = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_LONGEST_NUMBER = 15  # digits


class Malformed(Exception):
    """What came is no HTTP."""


class Connection:
    """To one host and port, one exchange at a time. Raises OSError (TimeoutError, ConnectionError…) and Malformed."""

    def __init__(self, host: str, port: int, tls: SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._socket: socket.socket | None = None
        self._ahead = b""  # received, and not yet read

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as this side knows."""
        return self._socket is not None

    def open(self, seconds: float) -> None:
        """Connect; each address of the host may take so long."""
        # As bytes, the host's name is not led through the IDNA codec: a URL's host is ASCII as it is. getaddrinfo, to
        # which it goes, takes bytes; typeshed has this function take text alone.
        address: Any = (self._host.encode("ascii"), self._port)
        self._socket = socket.create_connection(address, seconds)
        if self._tls is not None:
            try:
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=self._host)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """The end of this connection; it can be opened again."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._ahead = None, b""

    def ask(self, request: bytes, seconds: float) -> Answer:
        """Send a request, and receive the head of its answer. From now on, nothing for so many seconds is a failure."""
        self._open_socket.settimeout(seconds)
        self._open_socket.sendall(request)
        while True:
            answer = Answer(self)
            if answer.status >= 200:
                return answer

    def receive_into(self, buffer: memoryview) -> int:
        """The next bytes, as many as there are and fit; 0 at the end of the connection."""
        if not self._ahead:
            return self._open_socket.recv_into(buffer)
        count = min(len(buffer), len(self._ahead))
        buffer[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count

    def line(self) -> str:
        """The next line, without its end."""
        while (end := self._ahead.find(b"\n")) < 0:
            if len(self._ahead) > _LONGEST_HEAD:
                raise Malformed("a line without end")
            received = self._open_socket.recv(_RECEIVED)
            if not received:
                raise ConnectionResetError("the connection was closed before the answer")
            self._ahead += received
        line, self._ahead = self._ahead[:end], self._ahead[end + 1 :]
        return line.removesuffix(b"\r").decode("latin-1")

    @property
    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError("the connection is closed")
        return self._socket


class Answer:
    """An answer: `status`, `headers` (names in lower case) and the content, read once. `ended`: whether all of it was;
    `last`: whether the connection cannot be used for another."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        version, self.status = _status(connection.line())
        self.headers = _headers(connection)
        self.last = version == "HTTP/1.0" or "close" in self.headers.get("connection", "").lower()
        self._chunked = "transfer-encoding" in self.headers
        self._left: int | None = 0  # bytes of the content or of this chunk; None: until the connection ends
        self.ended = self.status < 200 or self.status in (204, 304)
        if self.ended:
            return
        length = self.headers.get("content-length")
        if self._chunked:
            if self.headers["transfer-encoding"].lower() != "chunked" or length is not None:
                raise Malformed("a content whose length is said in two ways, or in none that is known")
        elif length is None:
            self._left, self.last = None, True
        else:
            self._left = _number(length, _DIGITS, 10)
            self.ended = not self._left

    def read_into(self, buffer: memoryview) -> int:
        """The next bytes of the content; 0 at its end. One that ends early raises ConnectionResetError."""
        if self._chunked and not self._left and not self.ended:
            self._next_chunk()
        if self.ended:
            return 0
        count = self._connection.receive_into(buffer if self._left is None else buffer[: self._left])
        if self._left is None:
            self.ended = not count
            return count
        if not count:
            raise ConnectionResetError("the connection was closed in between")
        self._left -= count
        if not self._left:
            if not self._chunked:
                self.ended = True
            elif self._connection.line():
                raise Malformed("a chunk that is longer than it says")
        return count

    def _next_chunk(self) -> None:
        self._left = _number(self._connection.line().partition(";")[0].strip(), _HEXADECIMAL, 16)
        if not self._left:
            _headers(self._connection)  # trailers say nothing that matters
            self.ended = True


def _status(line: str) -> tuple[str, int]:
    version, _, rest = line.partition(" ")
    status = rest.partition(" ")[0]
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(status) != 3 or not _DIGITS.issuperset(status):
        raise Malformed("no HTTP/1.1")
    return version, int(status)


def _headers(connection: Connection) -> dict[str, str]:
    headers: dict[str, str] = {}
    left = _LONGEST_HEAD
    while line := connection.line():
        left -= len(line)
        name, colon, value = line.partition(":")
        if left < 0 or not colon or not name or name != name.strip():
            raise Malformed("a header that is none")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _number(text: str, digits: frozenset[str], base: int) -> int:
    if not 0 < len(text) <= _LONGEST_NUMBER or not digits.issuperset(text):
        raise Malformed("a length that is none")
    return int(text, base)
