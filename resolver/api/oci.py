"""`/v2/`: the pull half of the OCI distribution-spec; the ends are numbered as in its table of endpoints.

podman, skopeo, containerd and a kubelet pull bundles from here as images. What they are for is service/images.py's.
"""

import json
import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from resolver.api import oci_errors
from resolver.api.context import Services
from resolver.api.guard import caller_of
from resolver.api.oci_errors import PREFIX
from resolver.api.streaming import answer_blob, is_current
from resolver.domain.errors import NotFound
from resolver.service.images import Stored
from storage.content import INDEX, MANIFEST, Digest

# image-spec, descriptor, "Digests": an algorithm that is not ours is well formed all the same, and names nothing here.
_DIGEST = re.compile(r"(?!sha256:)[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{1,512}")
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}  # older clients take anything else for no registry
_READING = ("GET", "HEAD")
_WRITING = ("POST", "PATCH", "PUT", "DELETE")
_IMMUTABLE = "max-age=31536000, immutable, no-transform"

Name = Annotated[str, Path(description="bundles, locks/{hexadecimal}, or {namespace}/{workload}")]
Reference = Annotated[str, Path(description="a digest, or a tag such as cp312-musl", max_length=600)]
DigestPath = Annotated[str, Path(description="sha256:…", max_length=600)]

_DOCUMENT: dict[str, Any] = {"content": {kind: {"schema": {"type": "object"}} for kind in (MANIFEST, INDEX)}}
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_MANIFEST: dict[str, Any] = {
    "summary": "end-3: an image's manifest, or a tag's index over machines",
    "response_class": Response,
    "responses": {200: _DOCUMENT, 304: {"description": "Not modified"}, **oci_errors.responses(502, 504, 507)},
}
_BLOB: dict[str, Any] = {
    "summary": "end-2: a blob, as `/v1/blobs` has it",
    "response_class": Response,
    "responses": {
        200: _BINARY,
        206: _BINARY,
        304: {"description": "Not modified"},
        307: {"description": "The blob is to be had from the object storage (setting `blob_links`)"},
        **oci_errors.responses(416),
    },
}


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    images = services.images

    async def within(request: Request, name: str) -> None:
        await services.access.repository(caller_of(request), name)

    router = APIRouter(
        prefix=PREFIX,
        tags=["oci"],
        responses=oci_errors.responses(400, 401, 403, 404, 500, 503),
    )

    @router.get("/", summary="end-1: this is a registry")
    async def registry(response: Response) -> dict[str, str]:
        response.headers.update(_VERSION)
        return {}

    router.get("", include_in_schema=False)(registry)

    @router.get("/{name:path}/tags/list", summary="end-8: the tags, in the order of their bytes")
    async def tags(
        name: Name,
        request: Request,
        n: Annotated[int | None, Query(ge=0, description="so many at the most")] = None,
        last: Annotated[str | None, Query(max_length=128, description="those behind this one")] = None,
    ) -> Response:
        await within(request, name)
        found = [tag for tag in await images.tags(name) if last is None or tag > last]
        shown = found if n is None else found[:n]
        headers = {}
        if shown and len(shown) < len(found):
            # RFC 8288, 3: relative to what was asked for, whatever name the client has for this host.
            headers["Link"] = f'<{PREFIX}/{quote(name)}/tags/list?n={n}&last={quote(shown[-1])}>; rel="next"'
        return JSONResponse({"name": name, "tags": shown}, headers=headers)

    @router.get("/{name:path}/manifests/{reference}", **_MANIFEST)
    @router.head("/{name:path}/manifests/{reference}", **_MANIFEST)
    async def manifest(name: Name, reference: Reference, request: Request) -> Response:
        await within(request, name)
        if ":" in reference:
            wanted = _digest(reference)
            if wanted is None or not await services.access.has_content(caller_of(request), wanted):
                raise NotFound("manifest", reference)
            return _document(await images.stored(name, wanted), _IMMUTABLE, request)
        return _document(await images.tagged(name, reference), "no-cache", request)

    @router.get("/{name:path}/blobs/{digest}", **_BLOB)
    @router.head("/{name:path}/blobs/{digest}", **_BLOB)
    async def blob(name: Name, digest: DigestPath, request: Request) -> Response:
        await within(request, name)
        wanted = _digest(digest)
        await images.require(name)
        if wanted is None:
            raise NotFound("blob", digest)
        answer = await answer_blob(services, request, wanted, "application/octet-stream")
        if answer.status_code == 416:
            refused = oci_errors.respond(json.loads(bytes(answer.body)))
            refused.headers["Content-Range"] = answer.headers["Content-Range"]
            return refused
        answer.headers["Docker-Content-Digest"] = wanted
        return answer

    @router.get(
        "/{name:path}/referrers/{digest}",
        summary="end-12: what refers to a manifest: its locks",
        response_class=Response,
        responses={200: {"content": {INDEX: {"schema": {"type": "object"}}}}, **oci_errors.responses(507)},
    )
    async def referrers(
        name: Name,
        digest: DigestPath,
        request: Request,
        artifact_type: Annotated[str | None, Query(alias="artifactType", max_length=256)] = None,
    ) -> Response:
        await within(request, name)
        wanted = _digest(digest)
        await images.require(name)
        here = wanted and await services.access.has_content(caller_of(request), wanted)
        found = await images.referrers(name, wanted) if wanted and here else []
        if artifact_type is not None:
            found = [document for document in found if document.artifact_type == artifact_type]
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [document.to_json() for document in found]}
        headers = {} if artifact_type is None else {"OCI-Filters-Applied": "artifactType"}
        return Response(json.dumps(body), media_type=INDEX, headers=headers)

    @router.api_route("/{rest:path}", methods=[*_READING, *_WRITING], include_in_schema=False)
    async def other(rest: str, request: Request) -> Response:
        if request.method in _READING:
            raise HTTPException(404)
        raise HTTPException(405, headers={"Allow": ", ".join(_READING)})  # end-4 and others: nothing is pushed to here

    return router


def _digest(text: str) -> Digest | None:
    """The digest; None for a well-formed one that names nothing here. Raises InvalidDigest."""
    if _DIGEST.fullmatch(text):
        return None
    return Digest(text)


def _document(found: Stored, caching: str, request: Request) -> Response:
    digest = found.descriptor.digest
    headers = {
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Cache-Control": caching,
        **_VERSION,
    }
    if is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.descriptor.media_type)
