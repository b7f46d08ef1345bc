"""One blob as an answer: HEAD, Range, If-None-Match and If-Range, a turn among the streams; for every route that gives
blobs away."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from resolver.api import problems
from resolver.api.context import Services
from resolver.api.errors import request_id
from resolver.api.guard import caller_of
from resolver.service.contents import SMALL
from resolver.service.streams import Streams
from storage.content import Digest
from storage.errors import BlobNotFound

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_STALLED = 60.0
"""Seconds after which a client that takes nothing loses its turn."""


class Unsatisfiable(ValueError):
    """The range lies behind the end of the content."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a content; `partial` where a Range asked for it."""

    start: int
    length: int
    partial: bool


def span(header: str | None, size: int) -> Span:
    """The part that a Range header asks for (RFC 9110, 14.2). One that is none, or several at once, is ignored: all.

    Raises:
        Unsatisfiable: there are no such bytes.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return Span(0, size, partial=False)
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise Unsatisfiable
        return Span(size - length, length, partial=True)
    first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if match[2] and int(match[2]) < first:
        return Span(0, size, partial=False)
    if first >= size:
        raise Unsatisfiable
    return Span(first, last - first + 1, partial=True)


async def answer_blob(services: Services, request: Request, digest: Digest, media_type: str) -> Response:
    """The content that the digest names, or the part of it that the request asks for.

    A large one waits for its turn once the response is sent (see `Streams`), and is answered `busy` where it gets none.
    Raises BlobNotFound, where the caller may not read it too, and what the stores raise.
    """
    content = await services.contents.find(digest)
    if not await services.access.has_content(caller_of(request), content.kept):
        raise BlobNotFound(digest)
    etag = f'"{digest}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "max-age=31536000, immutable, no-transform",
        "Accept-Ranges": "bytes",
    }
    if is_current(request, etag):
        return Response(status_code=304, headers=headers)
    if link := await services.contents.link(content):
        # Good for a while only, so nobody keeps the answer; what is fetched there is verified by who fetches it.
        return RedirectResponse(link, status_code=307, headers={"Cache-Control": "no-store"})
    wanted = request.headers.get("Range") if request.headers.get("If-Range", etag) == etag else None
    try:
        part = span(wanted, content.size)
    except Unsatisfiable:
        problem = problems.body(
            problems.RANGE_NOT_SATISFIABLE, f"{digest} has {content.size} bytes", request_id(request)
        )
        refused = problems.respond(problem)
        refused.headers["Content-Range"] = f"bytes */{content.size}"
        return refused
    if part.partial:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{content.size}"
    status = 206 if part.partial else 200
    if request.method == "HEAD":
        headers["Content-Length"] = str(part.length)
        return Response(status_code=status, headers=headers, media_type=media_type)
    served = services.metrics.bundle_bytes_served.inc
    if part.length <= SMALL:
        piece = await services.contents.piece(content, part.start, part.length)
        served(len(piece))
        return Response(piece, status, headers, media_type)
    headers["Content-Length"] = str(part.length)
    chunks = services.contents.read(content, part.start, part.length, services.streams.chunk)
    client = request.client.host if request.client else ""
    return _InTurn(chunks, status, headers, media_type, streams=services.streams, client=client, served=served)


def is_current(request: Request, etag: str) -> bool:
    """Whether the caller has what bears this ETag (RFC 9110, 13.1.2)."""
    return etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]


class _InTurn(Response):
    """Waits for its turn, and keeps it until the last byte is sent, or the client is gone or takes nothing. `served` is
    told of the bytes. Nothing is said before the first of them is there: until then, it can still fail as a problem."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        status: int,
        headers: dict[str, str],
        media_type: str,
        *,
        streams: Streams,
        client: str,
        served: Callable[[int], None],
    ) -> None:
        super().__init__(None, status, headers, media_type)
        self._chunks = chunks
        self._streams = streams
        self._client = client
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        # Listened for from the start: a client that goes away while it waits gives its place in the queue up at once.
        gone = asyncio.create_task(_gone(receive))
        sending = asyncio.create_task(self._sent(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.wait({gone, sending})
        for ended in (sending, gone):
            if not ended.cancelled():
                ended.result()

    async def _sent(self, send: Send) -> None:
        async with self._streams.turn(self._client):
            chunk = await anext(self._chunks, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk:
                self._served(len(chunk))
                async with asyncio.timeout(_STALLED):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anext(self._chunks, b"")
            await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
