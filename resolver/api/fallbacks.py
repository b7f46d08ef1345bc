"""`POST /v1/fallbacks`: a Pod does without its bundle. Counted and logged; nothing else comes of it."""

import structlog
from fastapi import APIRouter

from resolver.api import problems, schemas
from resolver.api.context import Services

log = structlog.get_logger(__name__)


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", tags=["operation"])

    @router.post(
        "/fallbacks",
        response_model=schemas.FallbackAnswer,
        summary="A Pod starts without its bundle, for one of few reasons",
        responses=problems.responses(413, 422),
    )
    async def fell_back(body: schemas.FallbackBody) -> schemas.FallbackAnswer:
        services.metrics.fallbacks.labels(reason=body.reason).inc()
        log.warning("fallback", **body.model_dump())
        return schemas.FallbackAnswer(counted=body.reason)

    return router
