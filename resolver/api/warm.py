"""`POST /v1/warm`: resolve and build a list of requests before anybody asks."""

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from resolver.api import problems, schemas
from resolver.api.context import Services
from resolver.api.errors import request_id
from resolver.api.guard import caller_of
from resolver.api.operations import respond
from resolver.api.warm_schemas import WarmAnswer, WarmBody, WarmedEntry, WarmEntry
from resolver.domain.errors import Forbidden
from resolver.domain.identity import Caller
from resolver.domain.requests import Policy
from resolver.service.asked import Recent
from resolver.service.operations import Done, Failed, Outcome
from resolver.service.progress import Progress
from resolver.service.warm import Entry, Warmed

_STALE = "only an older lock is there: an index could not be asked for a fresh one"

log = structlog.get_logger(__name__)


def build_router(services: Services) -> APIRouter:
    """The routes, on these use cases."""
    router = APIRouter(prefix="/v1", tags=["warm"])

    @router.post(
        "/warm",
        response_model=WarmAnswer,
        summary="Resolve and build all that is named, before anybody asks; an entry that fails stops no other",
        responses={
            202: {"model": schemas.OperationAnswer, "description": "Not done within `wait` seconds: follow `Location`"},
            **problems.responses(401, 403, 413, 422, 500, 503, 507),
        },
    )
    async def warm(body: WarmBody, request: Request) -> Response:
        caller = caller_of(request)
        entries = [_entry(entry, caller) for entry in body.entries]
        if body.recent and caller.namespaces is not None:
            raise Forbidden(f"what was asked for lately is of all namespaces, and {caller.name} does not speak for all")
        recent = Recent(body.recent.days, body.recent.limit) if body.recent else None
        identifier = request_id(request)

        async def work(progress: Progress) -> Outcome:
            try:
                warmed = await services.warming.warm(entries, recent, progress)
            except Exception as failure:
                log.exception("warm.failed")
                return Failed(problems.of_exception(failure, identifier))
            return Done(_answer(warmed, identifier).model_dump(mode="json"))

        return respond(await services.operations.run("warm", work, min(body.wait, services.max_wait)))

    return router


def _entry(entry: WarmEntry, caller: Caller) -> Entry:
    return Entry(
        name=entry.name,
        requirements=entry.requirements,
        targets=[(target.python, target.platform) for target in entry.targets],
        constraints=entry.constraints,
        indexes=entry.indexes,
        policy=Policy(prereleases=entry.prereleases, exclude_newer=entry.exclude_newer),
        namespace=caller.named(entry.namespace) if entry.namespace else caller.home,
    )


def _answer(warmed: Sequence[Warmed], identifier: str) -> WarmAnswer:
    entries = [_warmed(each, identifier) for each in warmed]
    return WarmAnswer(hot=all(entry.problem is None for entry in entries), entries=entries)


def _warmed(warmed: Warmed, identifier: str) -> WarmedEntry:
    problem = _problem(warmed, identifier)
    answer = warmed.answer
    return WarmedEntry(
        name=warmed.name,
        target=schemas.TargetAnswer(python=warmed.python, platform=warmed.platform),
        outcome=warmed.outcome,
        lock=answer.lock.digest if answer else None,
        bundle=answer.bundle.digest if answer else None,
        seconds=round(warmed.seconds, 3),
        problem=schemas.Problem(**problem) if problem else None,
    )


def _problem(warmed: Warmed, identifier: str) -> dict[str, Any] | None:
    failure = warmed.failure
    if failure is None:
        return problems.body(problems.INDEX_UNAVAILABLE, _STALE, identifier) if warmed.outcome == "stale" else None
    if not isinstance(failure, Exception):
        return problems.of_refusal(failure, identifier)
    problem = problems.of_exception(failure, identifier)
    if problem["status"] >= 500:
        log.error("warm.entry-failed", entry=warmed.name, problem=problems.slug(problem), exc_info=failure)
    return problem
