"""The admission webhook: `admission.k8s.io/v1` AdmissionReview in and out. Whatever comes, the Pod is allowed."""

import base64
import json
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from resolver.api import errors
from resolver.api.edge import Edge
from resolver.domain.errors import RequestTooLarge
from resolver.domain.pods import Left
from resolver.domain.redaction import redact
from resolver.service.admission import Admission, Mode

PATHS: dict[Mode, str] = {"mutate": "/webhooks/v1/pods", "observe": "/webhooks/v1/pods/observe"}

_API = "admission.k8s.io/v1"
_KIND = "AdmissionReview"
_MAX_BODY = 8 << 20  # a Pod as it was and as it is, each within what etcd takes
_WARNING_CHARACTERS = 240  # the API server cuts longer ones off

log = structlog.get_logger(__name__)


def build_webhooks(admission: Admission, tell_request: Callable[..., None]) -> ASGIApp:
    """The application behind the webhook's own listener; `tell_request` logs one that was answered."""
    app = FastAPI(title="Lockstep webhooks", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    errors.install(app)

    @app.post(PATHS["mutate"])
    async def mutate(request: Request) -> JSONResponse:
        return await _reviewed(admission, request, "mutate")

    @app.post(PATHS["observe"])
    async def observe(request: Request) -> JSONResponse:
        return await _reviewed(admission, request, "observe")

    return Edge(app, max_body=_MAX_BODY, tell=tell_request)


async def _reviewed(admission: Admission, request: Request, mode: Mode) -> JSONResponse:
    try:
        review = json.loads(await request.body())
    except RequestTooLarge as failure:
        return _answer("", Left("malformed", str(failure)))
    except (ValueError, RecursionError):
        return _answer("", Left("malformed", "the review is not JSON"))
    asked = review.get("request") if isinstance(review, dict) else None
    uid = asked.get("uid") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or not isinstance(uid, str):
        return _answer("", Left("malformed", "it is no review of admission"))
    if (review.get("apiVersion"), review.get("kind")) != (_API, _KIND):
        return _answer(uid, Left("malformed", f"it is no {_KIND} of {_API}"))
    pod, namespace = asked.get("object"), asked.get("namespace")
    if asked.get("kind") != {"group": "", "version": "v1", "kind": "Pod"} or asked.get("operation") != "CREATE":
        return _answer(uid, Left("malformed", "it is not of a Pod that is made"))
    if not isinstance(pod, dict) or not isinstance(namespace, str) or not namespace:
        return _answer(uid, Left("malformed", "it has no Pod in a namespace"))
    found = await admission.review(pod, namespace, mode=mode, dry_run=asked.get("dryRun") is True)
    if isinstance(found, Left):
        return _answer(uid, found)
    return _answer(uid, found.patch if mode == "mutate" else Left("observed"))


def _answer(uid: str, found: Left | list[dict[str, Any]]) -> JSONResponse:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if not isinstance(found, Left):
        patch = base64.b64encode(json.dumps(found).encode()).decode()
        response |= {"patchType": "JSONPatch", "patch": patch}
    elif found.message:
        told = "".join(letter if letter.isprintable() else " " for letter in redact(found.message))
        response["warnings"] = [f"Lockstep leaves this Pod as it is: {told}"[:_WARNING_CHARACTERS]]
    if isinstance(found, Left) and found.code == "malformed":
        log.warning("webhook.malformed", reason=found.message)
    return JSONResponse({"apiVersion": _API, "kind": _KIND, "response": response})
