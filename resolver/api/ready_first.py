"""The door in front of the application: what is ready-made is answered before anything is parsed.

To route a request, parse it and check it costs several times what the answer does, and is the same for every replica of
a workload.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resolver.api import problems
from resolver.api.ready import Ready
from resolver.domain.errors import LockstepError
from storage.errors import StorageError

_JSON = (b"content-type", b"application/json")


class ReadyFirst:
    """Wraps the application. All but `POST /v1/resolve` passes through untouched."""

    def __init__(self, app: ASGIApp, ready: Ready) -> None:
        self._app = app
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if not _may_be_ready(scope):
            await self._app(scope, receive, send)
            return
        taken: list[Message] = []
        try:
            body = await _body(receive, taken)
            ready = None if body is None else await self._ready.find(body, scope["state"]["caller"].scope)
        except (LockstepError, StorageError) as failure:
            problem = problems.of_exception(failure, scope["state"]["request_id"])
            await problems.respond(problem)(scope, receive, send)
            return
        if ready is None:
            await self._app(scope, _again(taken, receive), send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": ready.headers})
        await send({"type": "http.response.body", "body": ready.content})


def _may_be_ready(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["path"] != "/v1/resolve":
        return False
    return scope["method"] == "POST" and _JSON in scope["headers"]


async def _body(receive: Receive, taken: list[Message]) -> bytes | None:
    """The request's body, what was received on the way to it noted; None where it breaks off."""
    while True:
        message = await receive()
        taken.append(message)
        if message["type"] != "http.request":
            return None
        if not message.get("more_body"):
            return b"".join(each.get("body", b"") for each in taken)


def _again(taken: list[Message], receive: Receive) -> Receive:
    """What was received already, and then the rest."""
    earlier = iter(taken)

    async def replay() -> Message:
        for message in earlier:
            return message
        return await receive()

    return replay
