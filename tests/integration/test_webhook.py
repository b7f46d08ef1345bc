"""The admission webhook over TLS, in the running service."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resolver.client.build import archive, bootstrap
from tests.integration.conftest import publish
from tests.support.certificates import certificate
from tests.support.functions import function, patched, plain
from tests.support.index import PackageIndex
from tests.support.service import ROOT, Service
from tests.support.webhook import MUTATE, OBSERVE, Webhook, patch_of, serving, until


@pytest.fixture(scope="module")
def webhook(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    folder = tmp_path_factory.mktemp("webhook")
    with serving(folder, index) as webhook:
        yield webhook


def test_a_function_is_patched_and_its_set_warmed(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    pod = function(requirements=f"{name}\n")
    response = webhook.review(pod)
    assert "warnings" not in response
    after = patched(pod, patch_of(response))
    init = after["spec"]["initContainers"][-1]
    assert init["command"][-1] == bootstrap()
    with webhook.service.client() as client:
        served = client.get("/client/lockstep.pyz")
    # What the Pod will check is what the service serves.
    assert served.content == archive()
    assert served.headers["ETag"] == f'"sha256:{init["args"][0]}"'
    until(lambda: any(each["outcome"] == "resolved" for each in webhook.events("admission.warmed")))
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "cached"
    again = webhook.review(after)
    assert "patch" not in again
    assert "warnings" not in again


def test_the_volume_is_limited_once_the_size_is_known(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    pod = function(requirements=f"{name}\n")

    def limit() -> dict[str, Any]:
        volumes = patched(pod, patch_of(webhook.review(pod, dryRun=True)))["spec"]["volumes"]
        (found,) = [each["emptyDir"] for each in volumes if each["name"] == "lockstep-deps"]
        assert isinstance(found, dict)
        return found

    assert limit() == {}
    target = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
    whose = {"namespace": "shop", "name": "orders", "revision": "6d4cf56db6"}
    webhook.service.resolve(f"{name}\n", target=target, workload=whose)
    assert limit() == {"sizeLimit": "65Mi"}


def test_a_dry_run_starts_nothing(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    seen = len(webhook.events("admission.warmed"))
    assert "patch" in webhook.review(function(requirements=f"{name}\n"), dryRun=True)
    # Another's warming that began later has ended; this one's would have too.
    publish(index, f"{name}-later", "1.0")
    webhook.review(function(requirements=f"{name}-later\n"))
    until(lambda: len(webhook.events("admission.warmed")) > seen)
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "resolved"


def test_to_observe_changes_nothing_and_tells(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    before, seen = webhook.metric("observe", "injected"), len(webhook.events("observed"))
    response = webhook.review(function(requirements=f"{name}\n"), OBSERVE)
    assert set(response) == {"uid", "allowed"}
    event = webhook.events("admission")[-1]
    assert (event["mode"], event["decision"], event["requirements"]) == ("observe", "injected", [name])
    assert (event["namespace"], event["workload"]) == ("shop", "orders")
    assert webhook.metric("observe", "injected") == before + 1
    until(lambda: len(webhook.events("observed")) > seen)
    told = webhook.events("observed")[-1]
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "cached"
    assert (told["lock"], told["packages"]) == (answer.json()["lock"]["digest"], 1)
    assert (told["result"], told["drift"]) == ("agrees", [])
    assert told["estimate"]["cpu_seconds_saved"] > 0
    # At 150m, which the function has.
    assert told["estimate"]["seconds_saved"] > 6 * told["estimate"]["cpu_seconds_saved"]
    with webhook.service.client() as client:
        pins = client.get("/v1/pins", params={"namespace": "shop"}).json()["items"]
    assert told["lock"] not in [pin["lock"] for pin in pins]


def test_replicas_that_would_differ_are_told(index: PackageIndex, name: str, tmp_path: Path) -> None:
    with serving(tmp_path, index, fresh_for="0s") as webhook:
        pod = function(requirements=f"{name}\n{name}-sub")
        publish(index, name, "1.0")
        publish(index, f"{name}-sub", "1.0")
        webhook.review(pod, OBSERVE)
        until(lambda: len(webhook.events("observed")) == 1)
        publish(index, name, "1.1")
        webhook.review(pod, OBSERVE)
        until(lambda: len(webhook.events("observed")) == 2)
        first, second = webhook.events("observed")
        assert (first["result"], second["result"]) == ("agrees", "drifts")
        assert first["lock"] != second["lock"]
        assert second["drift"] == [f"{name} 1.0 → 1.1"]
        metrics = webhook.service.metrics()
        assert 'lockstep_observed_pods_total{result="drifts"} 1.0' in metrics
        assert "lockstep_observed_saved_cpu_seconds_total" in metrics
        # The same, as a team reads it.
        log = tmp_path / "log"
        log.write_text(webhook.service.log())
        argv = [sys.executable, "-m", "resolver", "observed", "--json", str(log)]
        told = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
        (workload,) = json.loads(told)["workloads"]
        assert (workload["namespace"], workload["workload"], workload["pods"]) == ("shop", "orders", 2)
        assert workload["locks"] == [first["lock"], second["lock"]]
        assert workload["drift"] == [f"{name} 1.0 → 1.1"]


def test_what_cannot_be_locked_is_told_with_its_cause(webhook: Webhook, name: str) -> None:
    seen = len(webhook.events("observed"))
    webhook.review(function(requirements=f"{name}-nobody-has-this\n"), OBSERVE)
    until(lambda: len(webhook.events("observed")) == seen + 1)
    webhook.review(function(git=True), OBSERVE)
    until(lambda: len(webhook.events("observed")) == seen + 2)
    refused, unknown = webhook.events("observed")[seen:]
    assert refused["result"] == "refused"
    assert f"{name}-nobody-has-this" in refused["cause"]
    assert (unknown["result"], unknown["cause"]) == ("unknown", "its requirements are not in its spec")


def test_any_doubt_leaves_the_pod_and_says_why(webhook: Webhook) -> None:
    before = webhook.metric("mutate", "refused")
    response = webhook.review(function(requirements="--index-url https://me:hunter2@packages.example.com/simple\n"))
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert "line 1" in warning
    assert "hunter2" not in warning + webhook.service.log()
    assert webhook.metric("mutate", "refused") == before + 1
    assert set(webhook.review(plain({}))) == {"uid", "allowed"}  # who asked for nothing hears nothing


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"request": 1}',
        b'{"request": {"uid": 1}}',
        b'{"request": {"uid": "a"}}',
        b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "a"}}',
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "a", "object": 1}}',
        b'{"a": "' + b"x" * (9 << 20) + b'"}',
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_malformed_review_gets_a_well_formed_answer(webhook: Webhook, content: bytes) -> None:
    for path in (MUTATE, OBSERVE):
        response = webhook.answer(webhook.post(path, content))
        assert "patch" not in response
        assert response["warnings"]


@pytest.mark.parametrize("pod", [{}, {"spec": None}, {"metadata": 1, "spec": {}}, {"spec": {"containers": [1]}}, []])
def test_an_object_that_is_no_pod_is_allowed_all_the_same(webhook: Webhook, pod: Any) -> None:
    assert "patch" not in webhook.review(pod)


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "UPDATE"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"namespace": None},
        {"object": None},
    ],
)
def test_what_is_not_for_it_is_left(webhook: Webhook, changes: dict[str, Any]) -> None:
    assert "patch" not in webhook.review(function(), **changes)


def test_its_listener_serves_nothing_else(webhook: Webhook) -> None:
    context = ssl.create_default_context(cafile=str(webhook.folder / "tls.crt"))
    for path in ("/v1/locks", "/metrics", "/openapi.json"):
        assert httpx.get(webhook.url + path, verify=context).status_code == 404
    with webhook.service.client() as client:
        assert client.post(MUTATE, json={}).status_code == 404


def test_a_new_certificate_is_used_without_a_restart(webhook: Webhook) -> None:
    old = (webhook.folder / "tls.crt").resolve()
    # Half of a pair first: the one in use stays.
    certificate(webhook.folder, "half")
    key = (webhook.folder / "tls.key").resolve()
    for target in (webhook.folder / "half.key", key):
        new = webhook.folder / "new"
        new.symlink_to(target)
        new.replace(webhook.folder / "tls.key")
        if target != key:
            until(lambda: webhook.events("webhook.certificate-unusable"))
            webhook.answer(webhook.post(MUTATE, b"{}", trusted=old))
    new_one = webhook.install("second")
    pid = webhook.service.pid

    def renewed() -> bool:
        try:
            webhook.answer(webhook.post(MUTATE, b"{}", trusted=new_one))
        except httpx.ConnectError as failure:
            assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
            return False
        return True

    until(renewed)
    assert webhook.service.pid == pid
    with pytest.raises(httpx.ConnectError):
        webhook.post(MUTATE, b"{}", trusted=old)


def test_it_ends_with_the_service(webhook: Webhook, tmp_path: Path) -> None:
    environment = {
        "LOCKSTEP_WEBHOOK_LISTEN": "127.0.0.1:0",
        "LOCKSTEP_WEBHOOK_CERT": str(webhook.folder / "tls.crt"),
        "LOCKSTEP_WEBHOOK_KEY": str(webhook.folder / "tls.key"),
        "LOCKSTEP_WEBHOOK_SERVER": "http://lockstep.lockstep.svc:8080",
    }
    other = Webhook(
        Service(tmp_path / "data", index_url="http://127.0.0.1:9/simple", environment=environment), tmp_path
    )
    with other.service:
        other.answer(other.post(MUTATE, b"{}", trusted=webhook.folder / "tls.crt"))
        with other.service.client() as client:
            assert client.get("/readyz").status_code == 200
        assert other.service.stop() == 0
    assert "service.stopped" in other.service.log()


def test_an_address_that_is_taken_is_said_at_the_start(webhook: Webhook, tmp_path: Path) -> None:
    environment = {
        "LOCKSTEP_WEBHOOK_LISTEN": webhook.url.removeprefix("https://"),
        "LOCKSTEP_WEBHOOK_CERT": str(webhook.folder / "tls.crt"),
        "LOCKSTEP_WEBHOOK_KEY": str(webhook.folder / "tls.key"),
        "LOCKSTEP_WEBHOOK_SERVER": "http://lockstep.lockstep.svc:8080",
    }
    with pytest.raises(AssertionError, match=r"(?s)ended with 64.*webhook_listen"):
        Service(tmp_path / "data", index_url="http://127.0.0.1:9/simple", environment=environment).start()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"LOCKSTEP_WEBHOOK_LISTEN": "127.0.0.1:0"}, "webhook_cert"),
        ({"LOCKSTEP_WEBHOOK_LISTEN": "0.0.0.0:0"}, "not loopback"),
        ({"LOCKSTEP_WEBHOOK_LISTEN": "nowhere"}, "webhook"),
        (
            {
                "LOCKSTEP_WEBHOOK_LISTEN": "127.0.0.1:0",
                "LOCKSTEP_WEBHOOK_CERT": os.devnull,
                "LOCKSTEP_WEBHOOK_KEY": os.devnull,
                "LOCKSTEP_WEBHOOK_SERVER": "http://lockstep.lockstep.svc:8080",
            },
            "webhook_cert",
        ),
    ],
)
def test_settings_that_will_not_do_are_said_at_the_start(
    environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=f"(?s)ended with 64.*{told}"):
        Service(tmp_path / "data", index_url="http://127.0.0.1:9/simple", environment=environment).start()
