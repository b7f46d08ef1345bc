"""Alive, ready, metrics; and the client to run."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from resolver.api import schemas
from resolver.api.context import Services
from resolver.telemetry import CONTENT_TYPE
from storage.content import Digest

_CLIENT: dict[str, Any] = {
    "summary": "The client, for any Python 3.10+",
    "response_class": Response,
    "responses": {
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "Not modified"},
    },
}


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(tags=["operation"])
    packed = _Packed(services.client)

    @router.get("/healthz", summary="Alive", response_class=PlainTextResponse)
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @router.get(
        "/readyz",
        summary="Ready: 503 only for this process's own fault; what all replicas share and miss is `degraded`",
        response_model=schemas.Readiness,
        responses={503: {"model": schemas.Readiness, "description": "Shutting down"}},
    )
    async def readyz(response: Response) -> schemas.Readiness:
        if services.operations.draining:
            response.status_code = 503
            return schemas.Readiness(status="stopping", degraded=[])
        missing = await services.degraded()
        return schemas.Readiness(status="degraded" if missing else "ready", degraded=missing)

    @router.get("/metrics", summary="Prometheus text", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @router.get("/client/lockstep.pyz", **_CLIENT)
    @router.head("/client/lockstep.pyz", **_CLIENT)
    async def client(request: Request) -> Response:
        content, etag = await packed.get()
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="application/zip")

    return router


class _Packed:
    """The client and its ETag, made when they are first asked for: to compile it costs as much as a third of a start.
    One that failed is tried again."""

    def __init__(self, pack: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        self._pack = pack
        self._packing: asyncio.Task[tuple[bytes, str]] | None = None

    async def get(self) -> tuple[bytes, str]:
        packing = self._packing
        if packing is None or (packing.done() and (packing.cancelled() or packing.exception())):
            packing = self._packing = asyncio.create_task(self._made())
        return await asyncio.shield(packing)

    async def _made(self) -> tuple[bytes, str]:
        content = await self._pack()
        return content, f'"{Digest.of(content)}"'
