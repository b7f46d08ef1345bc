"""Whoever guards the door to images answers as the distribution-spec has it: a challenge, or a denial."""

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request

from resolver.api import errors, oci
from resolver.api.context import Services
from resolver.api.edge import Edge
from resolver.domain.errors import Forbidden, Unauthenticated

CHALLENGE = 'Bearer realm="https://tokens.example.com/token",service="lockstep",scope="repository:shop/x:pull"'
NOWHERE = "sha256:" + "0" * 64
ENDS = [
    ("GET", "/v2/"),
    ("GET", "/v2"),
    ("GET", "/v2/shop/x/tags/list"),
    ("GET", "/v2/shop/x/manifests/cp312-musl"),
    ("HEAD", f"/v2/shop/x/manifests/{NOWHERE}"),
    ("GET", f"/v2/shop/x/blobs/{NOWHERE}"),
    ("HEAD", f"/v2/shop/x/blobs/{NOWHERE}"),
    ("GET", f"/v2/shop/x/referrers/{NOWHERE}"),
    ("POST", "/v2/shop/x/blobs/uploads/"),
]


async def guard(request: Request) -> None:
    match request.headers.get("Authorization"):
        case None:
            raise Unauthenticated("a token is needed", CHALLENGE)
        case "Bearer of-another":
            raise Forbidden("not in this namespace")


async def ask(method: str, path: str, **headers: str) -> httpx.Response:
    services: Any = SimpleNamespace(images=None, admit=guard)  # whoever is let in comes to nothing else in these tests
    app = FastAPI(redirect_slashes=False)
    app.include_router(oci.build_router(cast("Services", services)))
    errors.install(app)
    transport = httpx.ASGITransport(Edge(app, max_body=1024, tell=lambda **_: None))
    async with httpx.AsyncClient(transport=transport, base_url="http://lockstep") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(("method", "path"), ENDS)
async def test_nobody_gets_in_without_a_token(method: str, path: str) -> None:
    answer = await ask(method, path)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, CHALLENGE)
    if method != "HEAD":
        assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(("method", "path"), ENDS)
async def test_nor_with_anothers(method: str, path: str) -> None:
    answer = await ask(method, path, Authorization="Bearer of-another")
    assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (403, False)
    if method != "HEAD":
        assert answer.json()["errors"][0]["code"] == "DENIED"


async def test_who_has_one_is_let_in() -> None:
    answer = await ask("GET", "/v2/", Authorization="Bearer good")
    assert (answer.status_code, answer.json()) == (200, {})
