"""Inspection: locks, what differs, why a package is there, who runs what; and an operator's refresh and hold."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from resolver.api import problems, render, schemas
from resolver.api.context import Services
from resolver.api.guard import caller_of
from resolver.api.streaming import is_current
from resolver.domain.inspection import requirements_text
from storage.content import Digest

_IMMUTABLE = "max-age=31536000, immutable"

Limit = Annotated[int, Query(ge=1, le=500)]
DigestPath = Annotated[str, Path(description="sha256:…", examples=["sha256:" + "0" * 64])]
Cursor = Annotated[str | None, Query(description="from the page before")]


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", responses=problems.responses(401, 422, 500, 503))
    found = problems.responses(404)
    unchanged = {304: {"description": "Not modified"}, **found}
    within = problems.responses(403)
    written = problems.responses(403, 507)

    async def readable(request: Request, *digests: str) -> list[Digest]:
        found = [Digest(digest) for digest in digests]
        for digest in found:
            await services.access.lock(caller_of(request), digest)
        return found

    @router.get(
        "/locks", tags=["locks"], summary="Locks, newest first", response_model=schemas.LockPage, responses=within
    )
    async def locks(
        request: Request,
        package: Annotated[str | None, Query(max_length=256, description="those with this package")] = None,
        namespace: Annotated[str | None, Query(max_length=256, description="those that its pins hold")] = None,
        cursor: Cursor = None,
        limit: Limit = 25,
    ) -> Response:
        caller = caller_of(request)
        namespace = caller.within(namespace)
        page = await services.inspecting.page(package, namespace, cursor, limit, caller.namespaces)
        return _json(schemas.LockPage(items=[render.lock_item(item) for item in page.items], cursor=page.cursor))

    @router.get(
        "/locks/{digest}",
        tags=["locks"],
        summary="One lock, whole",
        response_model=schemas.LockDetail,
        responses=unchanged,
    )
    async def lock(digest: DigestPath, request: Request) -> Response:
        [wanted] = await readable(request, digest)
        described = await services.inspecting.describe(wanted, caller_of(request).namespaces)
        answer = _json(render.lock_detail(*described))
        # Its pins come and go.
        return _unless_current(request, answer, f'"{Digest.of(bytes(answer.body))}"', "no-cache")

    @router.get(
        "/locks/{digest}/pylock.toml",
        tags=["locks"],
        summary="PEP 751",
        responses={200: {"content": {"application/toml": {"schema": {"type": "string"}}}}, **unchanged},
        response_class=Response,
    )
    async def pylock(digest: DigestPath, request: Request) -> Response:
        [wanted] = await readable(request, digest)
        content = (await services.inspecting.lock(wanted)).content
        return _unless_current(request, Response(content, media_type="application/toml"), f'"{digest}"', _IMMUTABLE)

    @router.get(
        "/locks/{digest}/requirements.txt",
        tags=["locks"],
        summary="pip's form, with hashes",
        responses=unchanged,
        response_class=PlainTextResponse,
    )
    async def requirements(digest: DigestPath, request: Request) -> Response:
        [wanted] = await readable(request, digest)
        answer = PlainTextResponse(requirements_text((await services.inspecting.lock(wanted)).pylock))
        return _unless_current(request, answer, f'"{Digest.of(bytes(answer.body))}"', _IMMUTABLE)

    @router.get("/locks/{a}/diff/{b}", tags=["locks"], summary="What changes from a to b", responses=found)
    async def diff(a: DigestPath, b: DigestPath, request: Request) -> schemas.LockDiff:
        return render.diff(a, b, await services.inspecting.diff(*await readable(request, a, b)))

    @router.get(
        "/locks/{digest}/why/{package}",
        tags=["locks"],
        summary="Every path from a requirement to a package",
        responses=found,
    )
    async def why(
        digest: DigestPath, package: Annotated[str, Path(max_length=256)], request: Request
    ) -> schemas.WhyAnswer:
        [wanted] = await readable(request, digest)
        return render.why(digest, package, await services.inspecting.why(wanted, package))

    @router.get(
        "/pins", tags=["pins"], summary="Who runs what, newest first", response_model=schemas.PinPage, responses=within
    )
    async def pins(
        request: Request,
        namespace: Annotated[str | None, Query(max_length=256)] = None,
        lock: Annotated[str | None, Query(description="those that hold this lock, sha256:…")] = None,
        cursor: Cursor = None,
        limit: Limit = 25,
    ) -> Response:
        namespace = caller_of(request).within(namespace)
        page = await services.inspecting.pins(namespace, Digest(lock) if lock else None, cursor, limit)
        return _json(schemas.PinPage(items=[render.pin(item) for item in page.items], cursor=page.cursor))

    @router.delete(
        "/pins/{namespace}/{workload}",
        tags=["pins"],
        summary="Refresh: the next revision resolves anew; nothing is removed",
        responses=written,
    )
    async def refresh(namespace: schemas.Name, workload: schemas.Name, request: Request) -> schemas.WorkloadAnswer:
        caller_of(request).named(namespace)
        return render.workload(await services.workloads.refresh(namespace, workload))

    @router.put(
        "/pins/{namespace}/{workload}/hold",
        tags=["pins"],
        summary="New revisions take this lock until the next refresh",
        responses={**found, **problems.responses(413), **written},
    )
    async def hold(
        namespace: schemas.Name, workload: schemas.Name, body: schemas.HoldBody, request: Request
    ) -> schemas.WorkloadAnswer:
        caller_of(request).named(namespace)
        [lock] = await readable(request, body.lock)  # a pin makes it readable
        return render.workload(await services.workloads.hold(namespace, workload, lock))

    return router


def _json(answer: BaseModel) -> Response:
    """It was checked when it was made: it need not be once more on its way out."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _unless_current(request: Request, answer: Response, etag: str, cache: str) -> Response:
    """The answer, or, where the caller has it already, no more than that."""
    headers = {"ETag": etag, "Cache-Control": cache}
    if is_current(request, etag):
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer
