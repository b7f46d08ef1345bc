"""HTTP to the service: kept connections, a token on every request to it and to nobody else, every wait bounded."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import urllib.parse
from contextlib import contextmanager

from resolver.client.errors import BadUsage, NotAllowed, Unavailable
from resolver.client.problems import failure
from resolver.client.retries import Passing, Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_CONNECT = 5.0  # seconds
_IDLE = 15.0
_REDIRECTS = 5
_LARGEST_ANSWER = 64 * 1024 * 1024
_LARGEST_PROBLEM = 1024 * 1024
_SUCCESS = (200, 202)
_MOVED = (301, 302, 303, 307, 308)

Origin = tuple[str, str, int]  # scheme, host, port


class Server:
    """The service as a client reaches it, and what the client shows it."""

    def __init__(self, url: str, token_file: str | None = None, ca_file: str | None = None) -> None:
        """Raises BadUsage for a URL or certificates that are none."""
        try:
            self.origin = _origin(url)
            if "?" in url or "#" in url:
                raise ValueError("it has neither query nor fragment")
        except ValueError as error:
            raise BadUsage(f"--server is not the URL of a service: {error}") from None
        self.base = url.rstrip("/")
        self._token_file = token_file
        try:
            self._trusted = ssl.create_default_context(cafile=ca_file) if ca_file else None
        except OSError as error:
            raise BadUsage(f"--ca-file {ca_file}: {error.strerror or error}") from error

    def authorization(self) -> dict[str, str]:
        """The header that shows the token (RFC 6750). Read each time: a projected token is renewed while we run."""
        if self._token_file is None:
            return {}
        try:
            with open(self._token_file, encoding="ascii") as file:
                token = file.read().strip()
        except OSError as error:
            raise NotAllowed(f"cannot read the token in {self._token_file}: {error.strerror}") from error
        except UnicodeDecodeError:
            token = ""
        if not token.isprintable() or not token or " " in token:
            raise NotAllowed(f"{self._token_file} holds no token")
        return {"Authorization": f"Bearer {token}"}

    def connection(self, origin: Origin) -> http.client.HTTPConnection:
        """A connection to there, not yet open."""
        scheme, host, port = origin
        if scheme == "http":
            return http.client.HTTPConnection(host, port)
        if self._trusted is None:
            self._trusted = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, context=self._trusted)


class Session:
    """One thread's connections. What can pass is raised as `Passing`, the rest as what it is."""

    def __init__(self, server: Server, patience: Patience) -> None:
        self._server = server
        self._patience = patience
        self._connections: dict[Origin, http.client.HTTPConnection] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.close()

    def call(self, method: str, path: str, body: object = None, idle: float = _IDLE) -> tuple[Body, dict[str, Any]]:
        """Send JSON, receive JSON: the answer's head and its content. Nothing for `idle` seconds is a failure."""
        content = None if body is None else json.dumps(body).encode()
        with self.exchange(method, path, content, idle) as answer:
            raw = answer.whole(_LARGEST_ANSWER)
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise Passing(Unavailable(f"{method} {path} was answered with something that is no JSON object"))
        return answer, parsed

    @contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        idle: float = _IDLE,
        arrived: Callable[[memoryview], None] | None = None,
    ) -> Iterator[Body]:
        """A request, and its successful answer while the context is open; `arrived` is shown each piece of the
        answer's content. A blob may be elsewhere (a presigned URL): redirects of GET are followed."""
        url = self._server.base + path
        for _ in range(_REDIRECTS):
            origin = _origin(url)
            response = self._send(method, url, content, idle)
            body = Body(response, self._patience, f"{method} {path}")
            try:
                if method == "GET" and response.status in _MOVED:
                    body.whole(_LARGEST_PROBLEM)
                    url = _redirected(url, response)
                    continue
                if response.status not in _SUCCESS:
                    raise self._failure(origin, body)
                body.arrived = arrived
                yield body
                return
            finally:
                if not response.isclosed():  # the rest of this answer would be the beginning of the next
                    self._connections[origin].close()
        raise Unavailable(f"{method} {path} is redirected without end")

    def _failure(self, origin: Origin, body: Body) -> Exception:
        if origin != self._server.origin:  # a store that a blob was redirected to; a new redirect may do better
            return Passing(Unavailable(f"{body.asked}: {origin[1]} answered with status {body.status}"))
        return failure(body.status, body.headers, body.whole(_LARGEST_PROBLEM), body.asked)

    def _send(self, method: str, url: str, content: bytes | None, idle: float) -> http.client.HTTPResponse:
        origin = _origin(url)
        parts = urllib.parse.urlsplit(url)
        headers = {"Accept": "*/*", "User-Agent": "lockstep-fetch"}
        if origin == self._server.origin:
            headers |= self._server.authorization()
        if content is not None:
            headers["Content-Type"] = "application/json"
        if origin not in self._connections:
            self._connections[origin] = self._server.connection(origin)
        connection = self._connections[origin]
        while True:
            kept = connection.sock is not None
            try:
                if not kept:
                    connection.timeout = min(_CONNECT, self._patience.left())
                    connection.connect()
                connection.sock.settimeout(min(idle, self._patience.left()))
                connection.request(method, parts._replace(scheme="", netloc="").geturl() or "/", content, headers)
                return connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and isinstance(error, ConnectionError):
                    continue  # the other side closed a connection that we had kept: nobody's failure
                final = Unavailable(f"{origin[0]}://{origin[1]}:{origin[2]} cannot be reached: {_reason(error)}")
                raise final if isinstance(error, ssl.SSLCertVerificationError) else Passing(final) from error


class Body(io.RawIOBase):
    """An answer: its head, and its content as a stream that ends early with `Passing`, never silently."""

    def __init__(self, response: http.client.HTTPResponse, patience: Patience, asked: str) -> None:
        self._response = response
        self._patience = patience
        self.arrived: Callable[[memoryview], None] | None = None
        self.asked = asked
        self.status = response.status
        self.headers = response.headers
        self.count = 0

    def readable(self) -> bool:
        """As io.RawIOBase has it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase has it."""
        self._patience.left()
        try:
            count = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            raise Passing(Unavailable(f"{self.asked}: the answer broke off: {_reason(error)}")) from error
        if not count and len(buffer) and self._response.length:
            raise Passing(Unavailable(f"{self.asked}: the answer broke off after {self.count} bytes"))
        if self.arrived is not None:
            self.arrived(memoryview(buffer)[:count])
        self.count += count
        return count

    def whole(self, limit: int) -> bytes:
        """All of it; more than `limit` bytes are no answer of the service."""
        parts = []
        while chunk := self.read(256 * 1024):
            parts.append(chunk)
            if self.count > limit:
                raise Unavailable(f"{self.asked}: the answer has more than {limit} bytes")
        return b"".join(parts)


def _origin(url: str) -> Origin:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it has characters that no URL has")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it begins with http:// or https://, and a host")
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in it; --token-file has the token")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _redirected(url: str, response: http.client.HTTPResponse) -> str:
    target = urllib.parse.urljoin(url, response.headers.get("Location", ""))
    try:
        origin = _origin(target)
    except ValueError:
        raise Unavailable("the service redirects to something that is no URL") from None
    if url.startswith("https:") and origin[0] == "http":
        raise Unavailable(f"the service redirects from https to plain http ({origin[1]})")
    return target


def _reason(error: Exception) -> str:
    """What went wrong in a few words; never the URL, whose query may be a signature."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
