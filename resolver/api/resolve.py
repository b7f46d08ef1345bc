"""`POST /v1/resolve`: requirements in, one lock and one bundle out."""

import structlog
from fastapi import APIRouter, Request, Response

from resolver.api import problems, render, schemas
from resolver.api.context import Services
from resolver.api.errors import request_id
from resolver.api.guard import caller_of
from resolver.api.operations import respond
from resolver.domain.errors import InvalidRequest
from resolver.domain.identity import Caller
from resolver.domain.requests import Policy, ResolveRequest, Workload
from resolver.domain.targets import TargetEnvironment
from resolver.service.operations import Done, Failed, Outcome
from resolver.service.progress import Progress
from resolver.service.resolve import Answer

log = structlog.get_logger(__name__)


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", tags=["resolve"])

    @router.post(
        "/resolve",
        response_model=schemas.ResolveAnswer,
        summary="Requirements and an interpreter in, one lock and one bundle out",
        responses={
            202: {"model": schemas.OperationAnswer, "description": "Not done within `wait` seconds: follow `Location`"},
            **problems.responses(401, 403, 413, 422, 500, 502, 503, 504, 507),
        },
    )
    async def resolve(body: schemas.ResolveBody, request: Request) -> Response:
        caller = caller_of(request)
        asked = _parse(services, body, caller)
        identifier = request_id(request)

        async def work(progress: Progress) -> Outcome:
            return await _outcome(services, asked, progress, identifier)

        outcome = await services.operations.run("resolve", work, min(body.wait, services.max_wait))
        response = respond(outcome)
        if isinstance(outcome, Done):
            content = bytes(response.body)
            services.ready.remember(await request.body(), caller.scope, asked, outcome.result, content)
        return response

    return router


def _parse(services: Services, body: schemas.ResolveBody, caller: Caller) -> ResolveRequest:
    return services.requests.parse(
        requirements=body.requirements,
        constraints=body.constraints,
        target=_target(body.target),
        indexes=body.indexes,
        policy=Policy(prereleases=body.prereleases, exclude_newer=body.exclude_newer),
        workload=_workload(body.workload, caller) if body.workload else None,
        namespace=caller.home,
    )


def _workload(workload: schemas.WorkloadName, caller: Caller) -> Workload:
    namespace = caller.named(workload.namespace) if workload.namespace else caller.home
    if namespace is None:
        raise InvalidRequest("name the workload's namespace: the token does not say which", field="workload.namespace")
    return Workload(namespace, workload.name, workload.revision)


def _target(target: schemas.PlatformTarget | schemas.ReportedTarget) -> TargetEnvironment:
    if isinstance(target, schemas.PlatformTarget):
        return TargetEnvironment.from_platform(target.python, target.platform)
    return TargetEnvironment.from_markers(target.markers, target.libc)


async def _outcome(services: Services, asked: ResolveRequest, progress: Progress, identifier: str) -> Outcome:
    """The work, its failures turned into problems here: whoever waits for it may be another request by then."""
    requests_total = services.metrics.resolve_requests
    try:
        found = await services.resolving.answer(asked, progress)
    except Exception as failure:
        problem = problems.of_exception(failure, identifier)
        requests_total.labels(outcome=problems.slug(problem)).inc()
        if problem["status"] >= 500:
            log.exception("resolve.failed", problem=problems.slug(problem))
        return Failed(problem)
    if not isinstance(found, Answer):
        problem = problems.of_refusal(found, identifier)
        requests_total.labels(outcome=problems.slug(problem)).inc()
        return Failed(problem)
    requests_total.labels(outcome=found.outcome).inc()
    services.asked.count(asked)
    return Done(render.answer(found).model_dump(mode="json", exclude_none=False))
