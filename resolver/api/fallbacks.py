"""`POST /v1/fallbacks`: a Pod does without its bundle. Counted and logged; nothing else comes of it."""

import structlog
from fastapi import APIRouter, Request

from resolver.api import problems, schemas
from resolver.api.context import Services
from resolver.api.guard import caller_of

log = structlog.get_logger(__name__)


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", tags=["operation"])

    @router.post(
        "/fallbacks",
        response_model=schemas.FallbackAnswer,
        summary="A Pod starts without its bundle, for one of few reasons",
        responses=problems.responses(401, 403, 413, 422),
    )
    async def fell_back(request: Request, body: schemas.FallbackBody) -> schemas.FallbackAnswer:
        if body.namespace is not None:
            caller_of(request).named(body.namespace)
        services.metrics.fallbacks.labels(reason=body.reason).inc()
        log.warning("fallback", **body.model_dump())
        return schemas.FallbackAnswer(counted=body.reason)

    return router
