"""`POST /v1/fallbacks`: a Pod does without its bundle. Counted and logged; nothing else comes of it.

Whoever is refused its bundle for its token is refused here too. That it came is told all the same, else nobody would
hear of tokens that no Pod's is taken; of what it wrote, nothing is.
"""

import structlog
from fastapi import APIRouter, Request
from starlette.types import Scope

from resolver.api import problems, schemas
from resolver.api.context import Services
from resolver.api.guard import caller_of
from resolver.domain.errors import Forbidden, LockstepError, Unauthenticated

_PATH = "/v1/fallbacks"

log = structlog.get_logger(__name__)


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(tags=["operation"])

    @router.post(
        _PATH,
        response_model=schemas.FallbackAnswer,
        summary="A Pod starts without its bundle, for one of few reasons",
        responses=problems.responses(401, 403, 413, 422),
    )
    async def fell_back(request: Request, body: schemas.FallbackBody) -> schemas.FallbackAnswer:
        caller = caller_of(request)
        if body.namespace is not None:
            try:
                caller.named(body.namespace)
            except Forbidden as failure:
                tell_refused(services, request.scope, failure)
                raise
        services.metrics.fallbacks.labels(reason=body.reason).inc()
        told = body.model_dump() | {"namespace": body.namespace or caller.home}
        log.warning("fallback", caller=caller.name, **told)
        return schemas.FallbackAnswer(counted=body.reason)

    return router


def tell_refused(services: Services, scope: Scope, failure: LockstepError) -> None:
    """Count a fallback that was told with a token that is not taken."""
    if (scope["method"], scope["path"]) != ("POST", _PATH) or not isinstance(failure, Unauthenticated | Forbidden):
        return
    services.metrics.fallbacks.labels(reason="not-allowed").inc()
    log.warning("fallback", reason="not-allowed", detail=str(failure), request_id=scope["state"]["request_id"])
