"""Bundles and blobs: always exactly the bytes that the digest names, with no Content-Encoding."""

from typing import Any

from fastapi import APIRouter, Request, Response

from resolver.api import problems
from resolver.api.context import Services
from resolver.api.locks import DigestPath
from resolver.api.streaming import answer_blob
from storage.content import MANIFEST, Digest

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


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    answers = {
        304: {"description": "Not modified"},
        307: {"description": "The blob is to be had from the object storage (setting `blob_links`)"},
        **problems.responses(401, 404, 416, 422, 500, 503),
    }
    router = APIRouter(prefix="/v1", tags=["bundles"], responses=answers)

    @router.get("/bundles/{digest}", **_BUNDLE)
    @router.head("/bundles/{digest}", **_BUNDLE)
    async def bundle(digest: DigestPath, request: Request) -> Response:
        return await answer_blob(services, request, Digest(digest), MANIFEST)

    @router.get("/blobs/{digest}", **_BLOB)
    @router.head("/blobs/{digest}", **_BLOB)
    async def blob(digest: DigestPath, request: Request) -> Response:
        return await answer_blob(services, request, Digest(digest), "application/octet-stream")

    return router
