"""What builders ask for and answer: each shows the token of its task, which is good for nothing else.

Between a service and the builders that it starts, which are of its own version: no part of the interface that others
may use, and so not in its description.
"""

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from resolver.api.guard import token_of
from resolver.builds.tasks import Tasks
from resolver.domain.errors import Busy, InvalidRequest, UnsupportedTarget
from resolver.domain.targets import TargetEnvironment

TASK, ANSWER = "/v1/builder/task", "/v1/builder/answer"
_RETRY_AFTER = 1.0
_LONGEST = 32


def build_router(tasks: Tasks) -> APIRouter:
    """The routes, on these tasks."""
    router = APIRouter(include_in_schema=False)

    @router.get(TASK)
    async def task(request: Request, python: str = "", machine: str = "", libc: str = "") -> Response:
        found = tasks.of(token_of(request.scope))
        try:
            facts = {"python_full_version": python, "platform_machine": machine}
            builder = TargetEnvironment.from_markers(facts, libc)
        except UnsupportedTarget as failure:
            found.refuse(f"its builder is of no target class: {failure}")
            raise
        found.builder = f"CPython {python[:_LONGEST]}, {libc}"
        step = await found.due(builder)
        return Response(status_code=204) if step is None else FileResponse(step.parcel, media_type="application/x-tar")

    @router.put(ANSWER)
    async def answer(request: Request, step: str = "") -> Response:
        found = tasks.of(token_of(request.scope))
        if not (step.isascii() and step.isdecimal() and len(step) < 5):
            raise InvalidRequest("it is the number of a step", field="step")
        try:
            await found.answer(int(step), request.stream())
        except ClientDisconnect:
            raise Busy("building", _RETRY_AFTER, "the answer broke off") from None
        return Response(status_code=204)

    return router
