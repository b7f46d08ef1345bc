"""Problems as an OCI client reads them (distribution-spec, "Error Codes"): the one table, in other words."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from resolver.api import problems

PREFIX = "/v2"

_CODES = {
    problems.UNAUTHENTICATED.slug: "UNAUTHORIZED",
    problems.FORBIDDEN.slug: "DENIED",
    problems.METHOD_NOT_ALLOWED.slug: "UNSUPPORTED",
    problems.NOT_FOUND.slug: "NAME_UNKNOWN",
    problems.BUSY.slug: "TOOMANYREQUESTS",
}
_UNKNOWN = {"manifest": "MANIFEST_UNKNOWN", "bundle": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN"}
_MALFORMED = {"digest": "DIGEST_INVALID"}
_OWN = {"type", "title", "status", "detail"}


def speaks(path: str) -> bool:
    """Whether it is an OCI client that asks for this path."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def respond(problem: Mapping[str, Any]) -> JSONResponse:
    """The problem as the specification has errors. A code that it has not is the problem's own name, in its letters."""
    slug = problems.slug(problem)
    code = _CODES.get(slug, slug.upper().replace("-", "_"))
    if slug == problems.NOT_FOUND.slug:
        code = _UNKNOWN.get(problem.get("kind", ""), code)
    elif slug == problems.INVALID_REQUEST.slug:
        code = _MALFORMED.get(problem.get("field", ""), code)
    facts = {name: value for name, value in problem.items() if name not in _OWN}
    # The specification's clients know 400 alone for what is malformed.
    status = 400 if problem["status"] == 422 else problem["status"]
    error = {"code": code, "message": problem["detail"], "detail": facts}
    return JSONResponse({"errors": [error]}, status, headers=problems.headers(problem))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of these statuses."""
    return {
        status: {
            "description": "`errors`, as the OCI distribution-spec has them",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OciErrors"}}},
        }
        for status in statuses
    }
