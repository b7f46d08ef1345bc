"""Asking the service: kept connections, a token on every request to it and to nobody else, every wait bounded."""

from __future__ import annotations

import json
from contextlib import contextmanager

from resolver.client.errors import BadUsage, NotAllowed, Unavailable
from resolver.client.problems import failure
from resolver.client.retries import Passing, Patience
from resolver.client.wire import Connection, Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from ssl import SSLContext
    from typing import Any

    from resolver.client.wire import Answer

_CONNECT = 5.0  # seconds
_IDLE = 15.0
_REDIRECTS = 5
_LARGEST_ANSWER = 64 * 1024 * 1024
_LARGEST_PROBLEM = 1024 * 1024
_BUFFER = 64 * 1024
_SUCCESS = (200, 202, 204, 206)
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]  # scheme, host, port


class Server:
    """The service as a client reaches it, and what the client shows it."""

    def __init__(self, url: str, token_file: str | None = None, ca_file: str | None = None) -> None:
        """Raises BadUsage for a URL or certificates that are none."""
        try:
            self.origin, _ = _parts(url)
            if "?" in url or "#" in url:
                raise ValueError("it has neither query nor fragment")
        except ValueError as error:
            raise BadUsage(f"--server is not the URL of a service: {error}") from None
        self.base = url.rstrip("/")
        self._token_file = token_file
        try:
            self._trusted = _trusting(ca_file) if ca_file else None
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

    def connection(self, origin: Origin) -> Connection:
        """A connection to there, not yet open."""
        scheme, host, port = origin
        if scheme == "https" and self._trusted is None:
            self._trusted = _trusting(None)
        return Connection(host, port, self._trusted if scheme == "https" else None)


class Session:
    """One thread's connections. What can pass is raised as `Passing`, the rest as what it is."""

    def __init__(self, server: Server, patience: Patience) -> None:
        self._server = server
        self._patience = patience
        self._connections: dict[Origin, Connection] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        for connection in self._connections.values():
            connection.close()

    def another(self) -> Session:
        """A session with the same service, for another thread."""
        return Session(self._server, self._patience)

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
        start: int = 0,
        media_type: str = "application/json",
    ) -> Iterator[Body]:
        """A request, its content of that media type, and its successful answer while the context is open. `start`: the
        first byte that is wanted, of an answer that may have the ones before it as well (RFC 9110, 14.2: a server may
        ignore a Range). A blob may be elsewhere (a presigned URL): redirects of GET are followed."""
        url = self._server.base + path
        for _ in range(_REDIRECTS):
            origin, target = _parts(url)
            answer = self._send(method, origin, target, content, idle, start, media_type)
            body = Body(answer, self._patience, f"{method} {path}")
            try:
                if method == "GET" and body.status in _MOVED:
                    body.whole(_LARGEST_PROBLEM)
                    url = _redirected(url, body.headers.get("location", ""))
                    continue
                if body.status not in _SUCCESS:
                    raise self._failure(origin, body)
                yield body
                return
            finally:
                if answer.last or not answer.ended:  # the rest of this answer would be the beginning of the next
                    self._connections[origin].close()
        raise Unavailable(f"{method} {path} is redirected without end")

    def _failure(self, origin: Origin, body: Body) -> Exception:
        if origin != self._server.origin:  # a store that a blob was redirected to; a new redirect may do better
            return Passing(Unavailable(f"{body.asked}: {origin[1]} answered with status {body.status}"))
        return failure(body.status, body.headers, body.whole(_LARGEST_PROBLEM), body.asked)

    def _send(
        self,
        method: str,
        origin: Origin,
        target: str,
        content: bytes | None,
        idle: float,
        start: int,
        media_type: str,
    ) -> Answer:
        headers = {"Host": _host(origin), "Accept": "*/*", "User-Agent": "lockstep-fetch"}
        if origin == self._server.origin:
            headers |= self._server.authorization()
        if start:
            headers["Range"] = f"bytes={start}-"
        if content is not None:
            headers |= {"Content-Type": media_type, "Content-Length": str(len(content))}
        lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", "")
        request = "\r\n".join(lines).encode("ascii") + (content or b"")
        if origin not in self._connections:
            self._connections[origin] = self._server.connection(origin)
        connection = self._connections[origin]
        while True:
            kept = connection.is_open
            try:
                if not kept:
                    connection.open(min(_CONNECT, self._patience.left()))
                return connection.ask(request, min(idle, self._patience.left()))
            except (OSError, Malformed) as error:
                connection.close()
                if kept and isinstance(error, ConnectionError):
                    continue  # the other side closed a connection that we had kept: nobody's failure
                final = Unavailable(f"{origin[0]}://{_host(origin)} cannot be reached: {_reason(error)}")
                # A certificate that is not trusted now will not be in a moment (ssl.SSLCertVerificationError).
                raise final if hasattr(error, "verify_code") else Passing(final) from error


class Body:
    """An answer: its head, and its content, which ends early with `Passing`, never silently."""

    def __init__(self, answer: Answer, patience: Patience, asked: str) -> None:
        self._answer = answer
        self._patience = patience
        self.asked = asked
        self.status = answer.status
        self.headers = answer.headers

    def read_into(self, buffer: memoryview) -> int:
        """The next bytes, as many as there are and fit; 0 at the end."""
        self._patience.left()
        try:
            return self._answer.read_into(buffer)
        except (OSError, Malformed) as error:
            raise Passing(Unavailable(f"{self.asked}: the answer broke off: {_reason(error)}")) from error

    def whole(self, limit: int) -> bytes:
        """All of it; more than `limit` bytes are no answer of the service."""
        content = bytearray()
        buffer = memoryview(bytearray(_BUFFER))
        while count := self.read_into(buffer):
            content += buffer[:count]
            if len(content) > limit:
                raise Unavailable(f"{self.asked}: the answer has more than {limit} bytes")
        return bytes(content)


def _trusting(ca_file: str | None) -> SSLContext:
    import ssl  # costs as much CPU as a small fetch, and a service in the cluster may speak plain HTTP

    return ssl.create_default_context(cafile=ca_file)


def _parts(url: str) -> tuple[Origin, str]:
    """Where a URL leads to, and what is asked for there (RFC 9112, 3.2.1). Raises ValueError."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it has characters that no URL has")
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, target = rest[:end], rest[end:]
    if "@" in authority:
        raise ValueError("credentials do not belong in it; --token-file has the token")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # none, or one within the address [::1]
        host, port = authority, ""
    if scheme not in _PORTS or not found or not host.strip("[]"):
        raise ValueError("it begins with http:// or https://, and a host")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError("its host is none")
    if not all(0 < len(label) <= 63 for label in host.removesuffix(".").split(".")):  # RFC 1035, 2.3.4
        raise ValueError("its host is none")
    if port and not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError("its port is none")
    origin = scheme, host.strip("[]").lower(), int(port) if port else _PORTS[scheme]
    return origin, target if target.startswith("/") else f"/{target}"


def _host(origin: Origin) -> str:
    """As the Host header has it (RFC 9110, 7.2)."""
    scheme, host, port = origin
    named = f"[{host}]" if ":" in host else host
    return named if port == _PORTS[scheme] else f"{named}:{port}"


def _redirected(url: str, location: str) -> str:
    from urllib.parse import urljoin  # redirects are rare

    target = urljoin(url, location)
    try:
        (scheme, host, _), _ = _parts(target)
    except ValueError:
        raise Unavailable("the service redirects to something that is no URL") from None
    if url.startswith("https:") and scheme == "http":
        raise Unavailable(f"the service redirects from https to plain http ({host})")
    return target


def _reason(error: Exception) -> str:
    """What went wrong in a few words; never the URL, whose query may be a signature."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
