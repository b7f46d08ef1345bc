"""The HTTP application, put together from its routes."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

from resolver.api import (
    blobs,
    builders,
    errors,
    fallbacks,
    health,
    locks,
    oci,
    oci_errors,
    operations,
    resolve,
    schemas,
    warm,
)
from resolver.api.context import Services
from resolver.api.edge import Edge, Named
from resolver.api.guard import OPEN, Guard
from resolver.api.ready_first import ReadyFirst


def build_app(services: Services, *, answers: bool = True) -> ASGIApp:
    """The application on these use cases; closing them is their maker's. A process that does not answer requests says
    how it is, and no more."""
    # Request ids are known to all that happens inside; the body is bounded before anybody reads it; and nothing is
    # answered, ready-made or not, before it is known who asks.
    inner = ReadyFirst(Named(build_routes(services, answers=answers)), services.ready)
    guard = Guard(inner, services.identity, lambda scope, failure: fallbacks.tell_refused(services, scope, failure))
    # What builders answer, with their tokens, is bounded by their tasks.
    return Edge(guard, max_body=services.max_body, unbounded={builders.ANSWER}, tell=services.tell_request)


def build_routes(services: Services, *, answers: bool = True) -> FastAPI:
    """All the routes. Who may ask for what is for the layers around them."""
    app = _Described(
        title="Lockstep",
        version=version("lockstep"),
        description="Locks a workload's Python requirements once and gives every replica the same bundle of wheels.",
        redirect_slashes=False,
        # Their pages load scripts from elsewhere; a cluster need not reach it.
        docs_url=None,
        redoc_url=None,
    )
    for part in (resolve, warm, operations, locks, blobs, oci, fallbacks, health) if answers else (health,):
        app.include_router(part.build_router(services))
    if services.tasks is not None:  # those of a process that does not answer others, too
        app.include_router(builders.build_router(services.tasks))
    errors.install(app)
    return app


class _Described(FastAPI):
    """Says in its document that every error is a problem: FastAPI's own schema of validation errors is none of ours."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
                tags=self.openapi_tags,
            )
            parts = document["components"]["schemas"]
            for described in (schemas.Problem, schemas.OciError, schemas.OciErrors):
                schema = described.model_json_schema(ref_template="#/components/schemas/{model}")
                schema.pop("$defs", None)  # each is a part of its own
                parts[described.__name__] = schema
            for unused in ("HTTPValidationError", "ValidationError"):
                parts.pop(unused, None)
            # RFC 6750, or RFC 7617 with a token as the password.
            schemes = {name: {"type": "http", "scheme": name} for name in ("bearer", "basic")}
            document["components"]["securitySchemes"] = schemes
            document["security"] = [{name: []} for name in schemes]
            for path in OPEN & document["paths"].keys():
                for operation in document["paths"][path].values():
                    operation["security"] = []
            for path in (path for path in document["paths"] if oci_errors.speaks(path)):
                for operation in document["paths"][path].values():
                    operation["responses"].pop("422", None)  # FastAPI's own; it is a 400 there
            self.openapi_schema = document
        return self.openapi_schema
