"""Whoever guards the door to images answers as the distribution-spec has it: a challenge, or a denial."""

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from resolver.api.app import build_app
from resolver.api.context import Services
from resolver.domain.errors import NotFound, Unauthenticated
from resolver.domain.identity import Caller
from resolver.service.access import Access

NOWHERE = "sha256:" + "0" * 64
ENDS = [
    ("GET", "/v2/shop/x/tags/list"),
    ("GET", "/v2/shop/x/manifests/cp312-musl"),
    ("HEAD", f"/v2/shop/x/manifests/{NOWHERE}"),
    ("GET", f"/v2/shop/x/blobs/{NOWHERE}"),
    ("HEAD", f"/v2/shop/x/blobs/{NOWHERE}"),
    ("GET", f"/v2/shop/x/referrers/{NOWHERE}"),
]


class Tokens:
    async def caller(self, token: str) -> Caller:
        match token:
            case "of-shop":
                return Caller("shop's", namespaces=frozenset(["shop"]))
            case "of-another":
                return Caller("another's", namespaces=frozenset(["bank"]))
        raise Unauthenticated("the token is none that is known here")


class NoImages:
    """Where there is none of any name."""

    def __getattr__(self, _: str) -> Any:
        async def absent(name: str, *_: object) -> None:
            raise NotFound("repository", name)

        return absent


async def ask(method: str, path: str, **headers: str) -> httpx.Response:
    nothing: Any = None
    services: Any = SimpleNamespace(
        images=NoImages(), client=None, tasks=None, ready=None, max_body=1024, tell_request=lambda **_: None,
        identity=Tokens(), access=Access([], nothing, nothing),
    )  # fmt: skip
    transport = httpx.ASGITransport(build_app(cast("Services", services)))
    async with httpx.AsyncClient(transport=transport, base_url="http://lockstep") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/"), ("GET", "/v2"), *ENDS])
async def test_nobody_gets_in_without_a_token(method: str, path: str) -> None:
    for shown in ({}, {"Authorization": "Bearer of-nobody"}):
        answer = await ask(method, path, **shown)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="lockstep"')
        if method != "HEAD":
            assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(("method", "path"), ENDS)
async def test_nor_with_anothers(method: str, path: str) -> None:
    answer = await ask(method, path, Authorization="Bearer of-another")
    assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (403, False)
    if method != "HEAD":
        assert answer.json()["errors"][0]["code"] == "DENIED"


@pytest.mark.parametrize(("method", "path"), ENDS)
async def test_who_has_one_is_let_in(method: str, path: str) -> None:
    answer = await ask(method, path, Authorization="Bearer of-shop")
    assert answer.status_code == 404
    assert (await ask("GET", "/v2/", Authorization="Bearer of-another")).json() == {}
