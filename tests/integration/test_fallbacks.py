"""What Pods tell of their fallbacks, as the service counts and logs it."""

import json
from collections.abc import Iterator

import pytest

from tests.support.service import Service

CI, MORE = "planted-token-of-ci", "planted-token-of-another"


def counted(service: Service, reason: str) -> float:
    name = f'lockstep_fallbacks_total{{reason="{reason}"}} '
    return sum(float(line.removeprefix(name)) for line in service.metrics().splitlines() if line.startswith(name))


def test_a_fallback_is_counted_by_its_reason_and_logged_whole(service: Service) -> None:
    before = counted(service, "refused")
    detail = "No wheel: see https://me:hunter2@packages.example.com/simple"
    body = {"reason": "refused", "detail": detail, "namespace": "shop", "workload": "orders"}
    with service.client() as client:
        assert client.post("/v1/fallbacks", json=body).json() == {"counted": "refused"}
    assert counted(service, "refused") == before + 1
    event = [each for each in service.events() if each["event"] == "fallback"][-1]
    assert (event["reason"], event["namespace"], event["workload"], event["level"]) == (
        *("refused", "shop", "orders", "warning"),
    )
    assert "No wheel" in event["detail"]
    assert "hunter2" not in service.log()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "a new one"},
        {"reason": "refused", "colour": "green"},
        {"reason": "refused", "detail": "x" * 1001},
    ],
)
def test_no_other_reason_makes_a_series(service: Service, body: dict[str, str]) -> None:
    with service.client() as client:
        answer = client.post("/v1/fallbacks", json=body)
    assert answer.status_code == 422
    assert "a new one" not in service.metrics()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks who calls."""
    folder = tmp_path_factory.mktemp("guarded")
    entries = [
        {"name": "ci", "role": "reader", "namespaces": ["shop"], "token": CI},
        {"name": "more", "role": "reader", "namespaces": ["shop", "bank"], "token": MORE},
    ]
    (folder / "tokens.yaml").write_text(json.dumps({"tokens": entries}))
    environment = {"LOCKSTEP_AUTH": "static", "LOCKSTEP_AUTH_TOKENS": str(folder / "tokens.yaml")}
    with Service(folder / "data", flags=["--network", "offline"], environment=environment) as started:
        yield started


def _tell(service: Service, token: str | None, **body: str) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with service.client() as client:
        return client.post("/v1/fallbacks", json={"reason": "killed", **body}, headers=headers).status_code


@pytest.mark.parametrize(
    ("token", "body", "namespace"),
    [(CI, {}, "shop"), (CI, {"namespace": "shop"}, "shop"), (MORE, {}, None), (MORE, {"namespace": "bank"}, "bank")],
)
def test_it_is_told_who_says_so(guarded: Service, token: str, body: dict[str, str], namespace: str | None) -> None:
    assert _tell(guarded, token, **body) == 200
    event = [each for each in guarded.events() if each["event"] == "fallback"][-1]
    assert (event["caller"], event["namespace"]) == ("ci" if token == CI else "more", namespace)


@pytest.mark.parametrize(
    ("token", "status", "why"),
    [
        (None, 401, "a token is needed"),
        ("planted-token-of-nobody", 401, "the token is none that is known here"),
        (CI, 403, "ci does not speak for namespace 'bank'"),
    ],
)
def test_who_is_refused_here_too_is_counted_and_not_believed(
    guarded: Service, token: str | None, status: int, why: str
) -> None:
    before, killed = counted(guarded, "not-allowed"), counted(guarded, "killed")
    assert _tell(guarded, token, namespace="bank", workload="vault", detail="believe me") == status
    assert (counted(guarded, "not-allowed"), counted(guarded, "killed")) == (before + 1, killed)
    event = [each for each in guarded.events() if each["event"] == "fallback"][-1]
    assert (event["reason"], event["detail"], event["level"]) == ("not-allowed", why, "warning")
    assert "believe me" not in guarded.log()
    assert "vault" not in guarded.log()
    assert "planted" not in guarded.log()
    (request,) = [each for each in guarded.events() if each.get("request_id") == event["request_id"]][1:]
    assert request["status"] == status


def test_other_requests_that_are_refused_are_no_fallbacks(guarded: Service) -> None:
    before = counted(guarded, "not-allowed")
    with guarded.client() as client:
        assert client.post("/v1/resolve", json={}).status_code == 401
        assert client.get("/v1/fallbacks").status_code == 401
        assert client.post("/v1/warm", json={}, headers={"Authorization": f"Bearer {CI}"}).status_code == 403
    assert counted(guarded, "not-allowed") == before
