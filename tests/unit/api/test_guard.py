"""Who may do what: every route that there is, for each kind of caller, as the guard has it."""

import base64
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Literal, cast

import httpx
import pytest
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from resolver.api.app import build_app, build_routes
from resolver.api.context import Services
from resolver.api.edge import Edge
from resolver.api.guard import Guard
from resolver.api.ready import ReadyMade
from resolver.builds.tasks import Tasks
from resolver.domain.errors import Busy, Unauthenticated
from resolver.domain.identity import Caller

Need = Literal["nothing", "token", "operator"]  # nothing: of the guard's, that is

# A route that is new belongs in here: the test says so.
NEEDS: dict[tuple[str, str], Need] = {
    ("GET", "/healthz"): "nothing",
    ("GET", "/readyz"): "nothing",
    ("GET", "/metrics"): "nothing",
    ("GET", "/client/lockstep.pyz"): "nothing",
    ("HEAD", "/client/lockstep.pyz"): "nothing",
    ("GET", "/v1/builder/task"): "nothing",  # what they do need, the token of a task, the route looks at
    ("PUT", "/v1/builder/answer"): "nothing",
    ("GET", "/openapi.json"): "token",
    ("HEAD", "/openapi.json"): "token",
    ("POST", "/v1/resolve"): "token",
    ("POST", "/v1/fallbacks"): "token",
    ("POST", "/v1/warm"): "operator",
    ("GET", "/v1/operations/{identifier}"): "token",
    ("GET", "/v1/locks"): "token",
    ("GET", "/v1/locks/{digest}"): "token",
    ("GET", "/v1/locks/{digest}/pylock.toml"): "token",
    ("GET", "/v1/locks/{digest}/requirements.txt"): "token",
    ("GET", "/v1/locks/{a}/diff/{b}"): "token",
    ("GET", "/v1/locks/{digest}/why/{package}"): "token",
    ("GET", "/v1/pins"): "token",
    ("DELETE", "/v1/pins/{namespace}/{workload}"): "operator",
    ("PUT", "/v1/pins/{namespace}/{workload}/hold"): "operator",
    ("GET", "/v1/bundles/{digest}"): "token",
    ("HEAD", "/v1/bundles/{digest}"): "token",
    ("GET", "/v1/blobs/{digest}"): "token",
    ("HEAD", "/v1/blobs/{digest}"): "token",
    ("GET", "/v2/"): "token",
    ("GET", "/v2"): "token",
    ("GET", "/v2/{name:path}/tags/list"): "token",
    ("GET", "/v2/{name:path}/manifests/{reference}"): "token",
    ("HEAD", "/v2/{name:path}/manifests/{reference}"): "token",
    ("GET", "/v2/{name:path}/blobs/{digest}"): "token",
    ("HEAD", "/v2/{name:path}/blobs/{digest}"): "token",
    ("GET", "/v2/{name:path}/referrers/{digest}"): "token",
    ("GET", "/v2/{rest:path}"): "token",
    ("HEAD", "/v2/{rest:path}"): "token",
    # Nothing is pushed to here, by whomever.
    ("POST", "/v2/{rest:path}"): "operator",
    ("PATCH", "/v2/{rest:path}"): "operator",
    ("PUT", "/v2/{rest:path}"): "operator",
    ("DELETE", "/v2/{rest:path}"): "operator",
}
CALLERS = {
    "a-token-of-an-operator": Caller("ada", operator=True),
    "a-token-of-a-reader": Caller("ci"),
    "a-token-of-a-pod": Caller("system:serviceaccount:shop:default", namespaces=frozenset(["shop"])),
}


class Tokens:
    """Identity by the tokens above."""

    async def caller(self, token: str) -> Caller:
        if token == "a-token-that-nobody-can-check-now":
            raise Busy("checking a token", 3)
        if token not in CALLERS:
            raise Unauthenticated("the token is none that is known here")
        return CALLERS[token]


async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
    """Whoever comes this far is told so."""
    headers = [(b"x-caller", scope["state"]["caller"].name.encode())]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def ask(method: str, path: str, authorization: str | None, identity: Tokens | None = None) -> httpx.Response:
    told: list[dict[str, Any]] = []
    edge = Edge(
        Guard(admitted, identity or Tokens(), lambda *_: None), max_body=1024, tell=lambda **fields: told.append(fields)
    )
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://lockstep") as client:
        answer = await client.request(method, path, headers=headers)
    assert "a-token" not in f"{told} {answer.text} {answer.headers}"
    return answer


def routes(*, answers: bool = True) -> Iterator[tuple[str, str]]:
    services: Any = SimpleNamespace(images=None, client=None, tasks=Tasks())  # routes alone: nobody asks them here
    found: list[BaseRoute] = [*build_routes(cast("Services", services), answers=answers).routes]
    while found:
        route = found.pop()
        if router := getattr(route, "original_router", None):  # a router that FastAPI includes, as it is
            found += router.routes
            continue
        assert isinstance(route, Route), f"{route} is for something other than HTTP: who may use it?"
        for method in route.methods or ():
            yield method, route.path


def test_every_route_is_in_the_table_above() -> None:
    assert set(routes()) == NEEDS.keys()


def test_a_worker_answers_its_builders_and_says_how_it_is() -> None:
    asked = {path for _, path in routes(answers=False)} - {"/client/lockstep.pyz", "/openapi.json"}
    assert asked == {"/healthz", "/readyz", "/metrics", "/v1/builder/task", "/v1/builder/answer"}


def concrete(path: str) -> str:
    names = {"name:path": "shop/checkout", "rest:path": "shop/checkout/blobs/uploads/"}
    while "{" in path:
        before, _, rest = path.partition("{")
        name, _, behind = rest.partition("}")
        path = before + names.get(name, "x") + behind
    return path


@pytest.mark.parametrize(("method", "path"), NEEDS)
async def test_each_caller_may_what_it_may(method: str, path: str) -> None:
    need = NEEDS[method, path]
    may: dict[str | None, int] = {
        None: 204 if need == "nothing" else 401,
        "Bearer a-token-of-nobody": 204 if need == "nothing" else 401,
        "Bearer a-token-of-a-pod": 403 if need == "operator" else 204,
        "Bearer a-token-of-a-reader": 403 if need == "operator" else 204,
        "Bearer a-token-of-an-operator": 204,
    }
    for authorization, status in may.items():
        answer = await ask(method, concrete(path), authorization)
        assert answer.status_code == status, f"{authorization}: {answer.status_code}"
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(
    "path", ["/healthz/", "//healthz", "/v1/resolve/", "/V1/RESOLVE", "/nowhere", "/metrics/x", "/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE"])
async def test_what_is_not_known_is_not_open(method: str, path: str) -> None:
    assert (await ask(method, path, None)).status_code == 401
    reader = await ask(method, path, "Bearer a-token-of-a-reader")
    assert reader.status_code == (204 if method == "GET" else 403)


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/client/lockstep.pyz"])
async def test_what_is_open_is_open_for_reading_alone(path: str) -> None:
    assert (await ask("POST", path, None)).status_code == 401
    assert (await ask("POST", path, "Bearer a-token-of-a-reader")).status_code == 403


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("path", ["/v2/", "/openapi.json", "/v1/locks"])
async def test_a_token_may_be_the_password_of_any_user(path: str) -> None:
    for user in ("", "anybody", "00000000-0000-0000-0000-000000000000"):
        answer = await ask("GET", path, basic(user, "a-token-of-a-reader"))
        assert (answer.status_code, answer.headers["X-Caller"]) == (204, "ci")
    assert (await ask("GET", path, basic("a-token-of-a-reader", "wrong"))).status_code == 401


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", "Bearer ", "bearer  ", "Basic", "Basic !!", "Basic bm9jb2xvbg==", "Basic Og==", "Basic /////w==",
     "Digest a-token-of-a-reader", "a-token-of-a-reader", "Bearera-token-of-a-reader"],
)  # fmt: skip
async def test_what_shows_no_token(shown: str) -> None:
    assert (await ask("GET", "/v1/locks", shown)).status_code == 401


async def test_refusals_are_problems_and_say_what_is_needed() -> None:
    none = await ask("GET", "/v1/locks", None)
    assert none.headers["Content-Type"] == "application/problem+json"
    assert none.headers["WWW-Authenticate"] == 'Bearer realm="lockstep", Basic realm="lockstep"'
    body = none.json()
    assert (body["type"], body["status"], body["retryable"]) == ("urn:lockstep:problem:unauthenticated", 401, False)
    assert body["request_id"] == none.headers["X-Request-ID"]
    denied = await ask("POST", "/v1/warm", "Bearer a-token-of-a-pod")
    assert denied.json()["type"] == "urn:lockstep:problem:forbidden"
    assert "system:serviceaccount:shop:default" in denied.json()["detail"]


async def test_a_registry_asks_for_a_password() -> None:
    """One that is told of Bearer looks for a server that gives tokens away."""
    none = await ask("GET", "/v2/", None)
    assert none.headers["WWW-Authenticate"] == 'Basic realm="lockstep"'
    assert none.json()["errors"][0]["code"] == "UNAUTHORIZED"
    denied = await ask("POST", "/v2/shop/x/blobs/uploads/", "Bearer a-token-of-a-pod")
    assert (denied.status_code, denied.json()["errors"][0]["code"]) == (403, "DENIED")


async def test_who_cannot_be_told_now_is_asked_to_come_again() -> None:
    answer = await ask("POST", "/v1/resolve", "Bearer a-token-that-nobody-can-check-now")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
    assert answer.json()["retryable"] is True


async def test_where_nobody_is_asked_everybody_may() -> None:
    edge = Edge(Guard(admitted, None, lambda *_: None), max_body=1024, tell=lambda **_: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://lockstep") as client:
        for method, path in NEEDS:
            assert (await client.request(method, concrete(path))).status_code == 204


async def test_what_is_ready_made_is_for_who_shows_a_token() -> None:
    """It is answered before the application, whose routes would fail here, and no sooner than it is known who asks."""
    asked: list[tuple[bytes, bytes]] = []

    class Answers:
        async def find(self, body: bytes, scope: bytes) -> ReadyMade | None:
            asked.append((body, scope))
            return ReadyMade(b"ready-made")

    services: Any = SimpleNamespace(
        images=None,
        client=None,
        tasks=None,
        ready=Answers(),
        max_body=1024,
        tell_request=lambda **_: None,
        identity=Tokens(),
    )
    app = build_app(cast("Services", services))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lockstep") as client:
        for token, status in ((None, 401), ("a-token-of-nobody", 401), ("a-token-of-a-pod", 200)):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = await client.post("/v1/resolve", json={}, headers=headers)
            assert answer.status_code == status
    assert answer.content == b"ready-made"
    assert asked == [(b"{}", CALLERS["a-token-of-a-pod"].scope)]
