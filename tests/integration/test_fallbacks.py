"""What Pods tell of their fallbacks, as the service counts and logs it."""

import pytest

from tests.support.service import Service


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
