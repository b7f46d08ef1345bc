"""`GET /v1/operations/{id}`: work that outlives its caller, followed to its end."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from resolver.api import problems, schemas
from resolver.api.context import Services
from resolver.api.warm_schemas import WarmAnswer
from resolver.service.operations import Done, Failed, Outcome, Running

_POLL_SECONDS = "1"


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", tags=["operations"])

    @router.get(
        "/operations/{identifier}",
        response_model=schemas.ResolveAnswer | WarmAnswer,
        summary="How a piece of work stands; once it is done, its answer",
        responses={
            202: {"model": schemas.OperationAnswer, "description": "Still under way"},
            **problems.responses(401, 404, 413, 422, 500, 502, 503, 504, 507),
        },
    )
    async def operation(identifier: str) -> Response:
        record = await services.operations.get(identifier)
        if record.result is not None:
            return respond(Done(record.result))
        if record.problem is not None:
            return respond(Failed(record.problem))
        return respond(Running(record.id, record.kind, record.progress))

    return router


def respond(outcome: Outcome | Running) -> Response:
    """The answer of work that is done, the problem of work that failed, where to follow what is under way."""
    match outcome:
        case Done():
            return JSONResponse(outcome.result)
        case Failed():
            return problems.respond(outcome.problem)
        case Running():
            body = schemas.OperationAnswer(id=outcome.id, kind=outcome.kind, state="running", progress=outcome.progress)
            headers = {"Location": f"/v1/operations/{outcome.id}", "Retry-After": _POLL_SECONDS}
            return JSONResponse(body.model_dump(mode="json"), status_code=202, headers=headers)
