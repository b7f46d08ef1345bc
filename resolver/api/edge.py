"""The outermost layer of HTTP: request ids, the body limit, one log line a request, a net for what nobody caught."""

import os
import re
import time
from collections.abc import Callable, Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resolver.api import problems
from resolver.domain.errors import RequestTooLarge
from resolver.domain.identity import ANYONE, Caller

_HEADER = b"x-request-id"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

log = structlog.get_logger(__name__)


class Named:
    """Has every event of the log that the application tells while it answers bear the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(request_id=scope["state"]["request_id"]):
            await self._app(scope, receive, send)


class Edge:
    """Wraps the whole application. `tell` logs a request that was answered. Bodies at paths that are `unbounded` are
    bounded by who reads them, as they come."""

    def __init__(
        self, app: ASGIApp, *, max_body: int, tell: Callable[..., None], unbounded: Collection[str] = ()
    ) -> None:
        self._app = app
        self._tell = tell
        self._max_body = max_body
        self._unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        try:
            bounded = receive if scope["path"] in self._unbounded else _Bounded(receive, self._max_body)
            await self._app(scope, bounded, answer)
        except Exception as failure:
            # Starlette answers what nobody caught with a 500 and raises it again, for us to tell.
            log.exception(
                "request.failed",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                error=repr(failure),
            )
            if not answer.status:
                await problems.respond(problems.of_exception(failure, request_id))(scope, receive, answer)
        finally:
            if scope["path"] not in _QUIET:
                caller: Caller = scope["state"].get("caller", ANYONE)
                self._tell(
                    request_id=request_id,
                    method=scope["method"],
                    path=scope["path"],
                    status=answer.status,
                    bytes=answer.sent,
                    seconds=round(time.perf_counter() - started, 4),
                    **({} if caller is ANYONE else {"caller": caller.name}),
                )


def _request_id(scope: Scope) -> str:
    """The caller's own, where it is one; else a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER:
            given: str = value.decode("latin-1")
            if _ACCEPTABLE.fullmatch(given):
                return given
    return os.urandom(16).hex()


class _Answer:
    """Counts what is sent, and puts the request's id on it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0
        self.sent = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (_HEADER, self._request_id.encode())]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)


class _Bounded:
    """Refuses a body over the limit as soon as it is."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._taken = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._taken += len(message.get("body", b""))
            if self._taken > self._limit:
                raise RequestTooLarge(self._limit)
        return message
