"""Bundles and blobs: always exactly the bytes that the digest names, with no Content-Encoding."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from resolver.api import problems
from resolver.api.context import Services
from resolver.api.errors import request_id
from resolver.api.locks import DigestPath
from resolver.service.contents import Content
from storage.content import MANIFEST, Digest

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_MANIFEST = {"content": {MANIFEST: {"schema": {"type": "object"}}}}
_BUNDLE: dict[str, Any] = {
    "summary": "A bundle's OCI image manifest",
    "response_class": Response,
    "responses": {200: _MANIFEST, 206: _MANIFEST},
}
_BLOB: dict[str, Any] = {
    "summary": "A blob; a layer by its own digest (tar+zstd), or by its diff_id (the plain tar)",
    "response_class": Response,
    "responses": {200: _BINARY, 206: _BINARY},
}


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


def answering(services: Services) -> Callable[[Request, Digest, str], Awaitable[Response]]:
    """What answers a request with the content of this digest, as this media type."""

    async def serve(request: Request, digest: Digest, media_type: str) -> Response:
        content = await services.contents.find(digest)
        etag = f'"{digest}"'
        headers = {
            "ETag": etag,
            "Cache-Control": "public, max-age=31536000, immutable, no-transform",
            "Accept-Ranges": "bytes",
        }
        if etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]:
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
        headers["Content-Length"] = str(part.length)
        if part.partial:
            headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{content.size}"
        status = 206 if part.partial else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=media_type)
        return StreamingResponse(counted(content, part), status, headers, media_type)

    async def counted(content: Content, part: Span) -> AsyncIterator[bytes]:
        async for chunk in services.contents.read(content, part.start, part.length):
            services.metrics.bundle_bytes_served.inc(len(chunk))
            yield chunk

    return serve


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    answers = {
        304: {"description": "Not modified"},
        307: {"description": "The blob is to be had from the object storage (setting `blob_links`)"},
        **problems.responses(404, 416, 422, 500, 503),
    }
    router = APIRouter(prefix="/v1", tags=["bundles"], responses=answers)
    serve = answering(services)

    @router.get("/bundles/{digest}", **_BUNDLE)
    @router.head("/bundles/{digest}", **_BUNDLE)
    async def bundle(digest: DigestPath, request: Request) -> Response:
        return await serve(request, Digest(digest), MANIFEST)

    @router.get("/blobs/{digest}", **_BLOB)
    @router.head("/blobs/{digest}", **_BLOB)
    async def blob(digest: DigestPath, request: Request) -> Response:
        return await serve(request, Digest(digest), "application/octet-stream")

    return router
