"""Who may do what, before anything else looks at a request.

    without a token   GET and HEAD of OPEN: how the service is, and the client, whose digest stands in the Pod's spec
    any valid token   whatever reads, and what PODS post: they ask for bundles, and tell that they do without
    a task's          what BUILDERS ask for, and nothing else: their routes look at it themselves
    an operator's     all else: refresh, hold, warm, and whatever is added and changes something

A route that is added later needs a token, and an operator's where it is not for reading: nothing is open unless it is
said here. For which namespaces somebody may ask is for the routes, which are given the caller.
"""

import base64
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from resolver.api import oci_errors, problems
from resolver.domain.errors import Forbidden, LockstepError, Unauthenticated
from resolver.domain.identity import ANYONE, Caller, Identity

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/client/lockstep.pyz"})
PODS = frozenset({("POST", "/v1/resolve"), ("POST", "/v1/fallbacks")})
BUILDERS = frozenset({("GET", "/v1/builder/task"), ("PUT", "/v1/builder/answer")})

_READING = frozenset({"GET", "HEAD"})
_REALM = 'realm="lockstep"'


def caller_of(request: Request) -> Caller:
    """Whoever asks."""
    found: Caller = request.state.caller
    return found


class Guard:
    """Wraps the application, the answers that are ready-made included. `identity` is None where nobody is asked;
    `refused` hears of each request that comes no further."""

    def __init__(
        self, app: ASGIApp, identity: Identity | None, refused: Callable[[Scope, LockstepError], None]
    ) -> None:
        self._app = app
        self._identity = identity
        self._tell_refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except LockstepError as failure:
                self._tell_refused(scope, failure)
                await _refused(scope, failure)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        method, path = scope["method"], scope["path"]
        if self._identity is None or (path in OPEN and method in _READING) or (method, path) in BUILDERS:
            scope["state"]["caller"] = ANYONE
            return
        token = token_of(scope)
        if token is None:
            raise Unauthenticated("a token is needed")
        scope["state"]["caller"] = caller = await self._identity.caller(token)
        if not (caller.operator or method in _READING or (method, path) in PODS):
            raise Forbidden(f"{method} {path} is for operators, and {caller.name} is none")


def token_of(scope: Scope) -> str | None:
    """What the request shows: a bearer's token (RFC 6750, 2.1), or one as the password of any user (RFC 7617), which
    is all that browsers and container runtimes know."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, shown = value.decode("latin-1").partition(" ")
            shown = shown.strip()
            if scheme.lower() == "bearer":
                return shown or None
            if scheme.lower() == "basic":
                return _password(shown)
    return None


def _password(shown: str) -> str | None:
    try:
        _, _, password = base64.b64decode(shown, validate=True).decode().partition(":")
    except ValueError:
        return None
    return password or None


def _refused(scope: Scope, failure: LockstepError) -> ASGIApp:
    problem = problems.of_exception(failure, scope["state"]["request_id"])
    of_oci = oci_errors.speaks(scope["path"])
    answer = oci_errors.respond(problem) if of_oci else problems.respond(problem)
    if isinstance(failure, Unauthenticated):
        # A container runtime that is told of Bearer looks for a server that gives tokens away.
        answer.headers["WWW-Authenticate"] = f"Basic {_REALM}" if of_oci else f"Bearer {_REALM}, Basic {_REALM}"
    return answer
