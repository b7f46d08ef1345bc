"""Every way to fail, answered as a problem."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from resolver.api import oci_errors, problems
from resolver.domain.errors import LockstepError, RequestTooLarge, Unauthenticated
from storage.content import InvalidDigest
from storage.errors import StorageError
from storage.records import InvalidCursor

_OF_STATUS = {
    401: problems.UNAUTHENTICATED,
    403: problems.FORBIDDEN,
    404: problems.NOT_FOUND,
    405: problems.METHOD_NOT_ALLOWED,
    413: problems.TOO_LARGE,
}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    for kind in (LockstepError, StorageError, InvalidDigest, InvalidCursor, Exception):
        app.add_exception_handler(kind, _exception)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)


def request_id(request: Request) -> str:
    """The id that the edge gave this request."""
    found: str = request.state.request_id
    return found


def _respond(request: Request, problem: Mapping[str, Any]) -> Response:
    if oci_errors.speaks(request.url.path):
        return oci_errors.respond(problem)
    return problems.respond(problem)


async def _exception(request: Request, error: Exception) -> Response:
    answer = _respond(request, problems.of_exception(error, request_id(request)))
    if isinstance(error, Unauthenticated) and error.challenge:
        answer.headers["WWW-Authenticate"] = error.challenge
    return answer


async def _http(request: Request, error: Exception) -> Response:
    # Starlette's, for unknown routes and methods; FastAPI's, for a body that broke off or grew too large.
    if isinstance(error.__cause__, RequestTooLarge):
        return await _exception(request, error.__cause__)
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = _OF_STATUS.get(status, problems.INVALID_REQUEST)
    detail = f"{request.method} {request.url.path}" if status in (404, 405) else str(getattr(error, "detail", ""))
    answer = _respond(request, problems.body(kind, detail, request_id(request)))
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)  # Allow, of a method that is not (RFC 9110, 15.5.6)
    return answer


async def _validation(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    told = [{"field": ".".join(str(part) for part in item["loc"][1:]), "reason": item["msg"]} for item in found]
    detail = "; ".join(f"{item['field'] or 'body'}: {item['reason']}" for item in told)
    return _respond(request, problems.body(problems.INVALID_REQUEST, detail, request_id(request), errors=told))
