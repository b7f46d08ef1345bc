"""The one table that maps what went wrong to an answer: RFC 9457 problem details."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from resolver.domain import errors
from resolver.domain.outcomes import BuildFailed, BuildRequired, NoSolution, Refusal, TargetConflict
from resolver.domain.redaction import redact
from resolver.service.delegation import WorkFailed
from storage import errors as storage_errors
from storage.content import InvalidDigest
from storage.records import InvalidCursor

MEDIA_TYPE = "application/problem+json"
_LINES_SHOWN = 40
"""The last lines of a build's log, in a problem."""
TYPE_BASE = "urn:lockstep:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """One line of the table: the slug that `type` ends in, the status, and whether trying again may pass."""

    slug: str
    title: str
    status: int
    retryable: bool = False


INVALID_REQUEST = Kind("invalid-request", "The request is malformed or asks for what is not allowed", 422)
UNSUPPORTED_TARGET = Kind("unsupported-target", "No such target class", 422)
NO_SOLUTION = Kind("no-solution", "Nothing satisfies the requirements", 422)
BUILD_REQUIRED = Kind("build-required", "A package has no wheel for the target and would have to be built", 422)
BUILD_FAILED = Kind("build-failed", "A package's source distribution did not build", 422)
TARGET_CONFLICT = Kind("target-conflict", "The target classes cannot have equal versions", 422)
INVALID_WHEEL = Kind("invalid-wheel", "A wheel cannot be installed as it was published", 422)
UNAUTHENTICATED = Kind("unauthenticated", "A valid token is needed", 401)
FORBIDDEN = Kind("forbidden", "The caller may not do this", 403)
NOT_FOUND = Kind("not-found", "There is no such thing", 404)
METHOD_NOT_ALLOWED = Kind("method-not-allowed", "The resource does not answer this method", 405)
RANGE_NOT_SATISFIABLE = Kind("range-not-satisfiable", "The blob has no such bytes", 416)
TOO_LARGE = Kind("request-too-large", "The request's body is too large", 413)
INDEX_UNAVAILABLE = Kind("index-unavailable", "A package index cannot be used just now", 502, retryable=True)
DIGEST_MISMATCH = Kind("digest-mismatch", "What arrived is not what its digest names", 502, retryable=True)
BUSY = Kind("busy", "Too much is under way", 503, retryable=True)
STORAGE_UNAVAILABLE = Kind("storage-unavailable", "A store cannot be reached just now", 503, retryable=True)
TIMEOUT = Kind("timeout", "The work was not done in time", 504, retryable=True)
STORAGE_FULL = Kind("storage-full", "No room is left in the store", 507, retryable=True)
INTERNAL = Kind("internal", "Lockstep failed; its log says how", 500)

KINDS = (
    INVALID_REQUEST, UNSUPPORTED_TARGET, NO_SOLUTION, BUILD_REQUIRED, BUILD_FAILED, TARGET_CONFLICT, INVALID_WHEEL,
    UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, METHOD_NOT_ALLOWED, RANGE_NOT_SATISFIABLE, TOO_LARGE, INDEX_UNAVAILABLE,
    DIGEST_MISMATCH,   BUSY,    STORAGE_UNAVAILABLE, TIMEOUT, STORAGE_FULL, INTERNAL,
)  # fmt: skip

Facts = dict[str, Any]


def _of(kind: Kind, facts: Callable[[Any], Facts] = lambda _: {}) -> tuple[Kind, Callable[[Any], Facts]]:
    return kind, facts


_TABLE: Mapping[type[Exception], tuple[Kind, Callable[[Any], Facts]]] = {
    errors.InvalidRequest: _of(INVALID_REQUEST, lambda e: {"field": e.field, "line": e.line, "text": e.text}),
    errors.UnsupportedTarget: _of(UNSUPPORTED_TARGET, lambda e: {"asked": e.asked, "supported": e.supported}),
    errors.NotFound: _of(NOT_FOUND, lambda e: {"kind": e.kind, "name": e.name}),
    errors.Unauthenticated: _of(UNAUTHENTICATED),
    errors.Forbidden: _of(FORBIDDEN),
    errors.RequestTooLarge: _of(TOO_LARGE, lambda e: {"limit": e.limit}),
    errors.Busy: _of(BUSY, lambda e: {"retry_after": e.retry_after}),
    errors.TimedOut: _of(TIMEOUT, lambda e: {"seconds": e.seconds}),
    errors.IndexUnavailable: _of(INDEX_UNAVAILABLE, lambda e: {"index": e.index, "about": e.about}),
    errors.ContentMismatch: _of(
        DIGEST_MISMATCH, lambda e: {"file": e.file, "index": e.index, "expected": e.expected, "actual": e.actual}
    ),
    errors.InvalidWheel: _of(INVALID_WHEEL, lambda e: {"file": e.file}),
    storage_errors.BlobNotFound: _of(NOT_FOUND, lambda e: {"kind": "blob", "name": e.digest}),
    storage_errors.DigestMismatch: _of(DIGEST_MISMATCH, lambda e: {"expected": e.expected, "actual": e.actual}),
    storage_errors.StorageFull: _of(STORAGE_FULL, lambda _: {"retry_after": 30}),
    storage_errors.StorageUnavailable: _of(STORAGE_UNAVAILABLE, lambda _: {"retry_after": 5}),
    InvalidCursor: _of(INVALID_REQUEST, lambda _: {"field": "cursor"}),
    InvalidDigest: _of(INVALID_REQUEST, lambda _: {"field": "digest"}),
}

# What these say is of the service's inside; the log has it, the answer has not.
_SILENT = frozenset({storage_errors.StorageUnavailable, storage_errors.StorageFull})


def classify(error: BaseException) -> Kind:
    """The line of the table for an exception; INTERNAL where it has none."""
    return next((_TABLE[base][0] for base in type(error).__mro__ if base in _TABLE), INTERNAL)


def of_exception(error: BaseException, request_id: str) -> dict[str, Any]:
    """The problem that an exception is answered with. Redacted; an internal one says nothing of its cause."""
    if isinstance(error, WorkFailed):
        return {**error.problem, "request_id": request_id}
    row = next((_TABLE[base] for base in type(error).__mro__ if base in _TABLE), None)
    if row is None:
        return body(INTERNAL, "an unexpected failure; the log of the service has it under this request_id", request_id)
    kind, facts = row
    detail = kind.title if type(error) in _SILENT else str(error)
    return body(kind, detail, request_id, **facts(error))


def of_refusal(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The problem that an expected refusal is answered with, its explanation whole."""
    match refusal:
        case NoSolution():
            return body(NO_SOLUTION, refusal.explanation, request_id, hints=[refusal.explanation, *refusal.hints])
        case BuildRequired():
            detail = (
                f"{refusal.package} {refusal.version} has no wheel for {refusal.target}, only a source distribution"
            )
            hints = [*dict.fromkeys((refusal.explanation, *refusal.hints))]
            return body(
                BUILD_REQUIRED,
                detail,
                request_id,
                package=refusal.package,
                version=refusal.version,
                target=refusal.target,
                hints=[hint for hint in hints if hint and hint != detail],
            )
        case BuildFailed():
            return body(
                BUILD_FAILED,
                f"{refusal.package} {refusal.version} could not be built from source: {refusal.cause}",
                request_id,
                package=refusal.package,
                version=refusal.version,
                target=refusal.target,
                hints=[*refusal.log.splitlines()[-_LINES_SHOWN:], *refusal.hints],
            )
        case TargetConflict():
            return body(
                TARGET_CONFLICT,
                refusal.explanation,
                request_id,
                packages=[*refusal.packages],
                hints=[*refusal.hints],
            )


def body(kind: Kind, detail: str, request_id: str, /, **facts: object) -> dict[str, Any]:
    """A problem's JSON; facts that are None are left out."""
    told = {name: _clean(value) for name, value in facts.items() if value is not None}
    return {
        "type": TYPE_BASE + kind.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": redact(detail),
        "retryable": kind.retryable,
        "request_id": request_id,
        **told,
    }


def _clean(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def respond(problem: Mapping[str, Any]) -> JSONResponse:
    """The problem as a response."""
    return JSONResponse(dict(problem), problem["status"], headers=headers(problem), media_type=MEDIA_TYPE)


def headers(problem: Mapping[str, Any]) -> dict[str, str]:
    """What a problem's response has for headers: Retry-After (RFC 9110) where it says when to come back."""
    if "retry_after" not in problem:
        return {}
    return {"Retry-After": str(max(1, math.ceil(problem["retry_after"])))}


def slug(problem: Mapping[str, Any]) -> str:
    """The last part of a problem's `type`."""
    return str(problem["type"]).removeprefix(TYPE_BASE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of these statuses: which problems they may be."""
    return {
        status: {
            "description": "; ".join(f"`{kind.slug}`: {kind.title}" for kind in KINDS if kind.status == status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
