"""The admission webhook over TLS, in the running service."""

import base64
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from resolver.client.build import archive, bootstrap
from tests.integration.conftest import publish
from tests.support.certificates import certificate
from tests.support.functions import function, patched, plain
from tests.support.index import PackageIndex
from tests.support.service import Service

_SECONDS = 30
_MUTATE = "/webhooks/v1/pods"
_OBSERVE = "/webhooks/v1/pods/observe"


class Webhook:
    """The service with its webhook, and what signs that."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder

    @property
    def url(self) -> str:
        (event,) = [each for each in self.service.events() if each["event"] == "webhook.listening"]
        return f"https://127.0.0.1:{event['port']}"

    def install(self, name: str) -> Path:
        """Put a new certificate in the place of the one there, as a kubelet does: by a link; returns it."""
        cert, key = certificate(self.folder, name)
        for link, file in (("tls.crt", cert), ("tls.key", key)):
            new = self.folder / f"{link}.new"
            new.symlink_to(file)
            new.replace(self.folder / link)
        return cert

    def post(self, path: str, content: bytes, trusted: Path | None = None) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(trusted or self.folder / "tls.crt"))
        return httpx.post(self.url + path, content=content, verify=context, timeout=30)

    def review(self, pod: Any, path: str = _MUTATE, **changes: Any) -> dict[str, Any]:
        request = {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "shop",
            "dryRun": False,
            "object": pod,
            **changes,
        }
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        response = self.answer(self.post(path, json.dumps(review).encode()))
        assert response["uid"] == request["uid"]
        return response

    @staticmethod
    def answer(answer: httpx.Response) -> dict[str, Any]:
        """The response, which is well formed, and allows the Pod."""
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response = body["response"]
        assert isinstance(response, dict)
        assert response["allowed"] is True
        assert ("patch" in response) == (response.get("patchType") == "JSONPatch")
        assert all(len(each) <= 256 and each.isprintable() for each in response.get("warnings", []))
        return response

    def events(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.service.events() if each["event"] == name]

    def metric(self, mode: str, decision: str) -> float:
        name = f'lockstep_admissions_total{{decision="{decision}",mode="{mode}"}} '
        return sum(float(line.removeprefix(name)) for line in self.service.metrics().splitlines() if name in line)


@pytest.fixture(scope="module")
def webhook(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    folder = tmp_path_factory.mktemp("webhook")
    environment = {
        "LOCKSTEP_WEBHOOK_LISTEN": "127.0.0.1:0",
        "LOCKSTEP_WEBHOOK_CERT": str(folder / "tls.crt"),
        "LOCKSTEP_WEBHOOK_KEY": str(folder / "tls.key"),
        "LOCKSTEP_WEBHOOK_SERVER": "http://lockstep.lockstep.svc:8080",
    }
    service = Service(folder / "data", index_url=index.url, environment=environment)
    webhook = Webhook(service, folder)
    webhook.install("first")
    with service:
        yield webhook


def _until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _patch(response: dict[str, Any]) -> list[dict[str, Any]]:
    found = json.loads(base64.b64decode(response["patch"], validate=True))
    assert isinstance(found, list)
    return found


def test_a_function_is_patched_and_its_set_warmed(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    pod = function(requirements=f"{name}\n")
    response = webhook.review(pod)
    assert "warnings" not in response
    after = patched(pod, _patch(response))
    init = after["spec"]["initContainers"][-1]
    assert init["command"][-1] == bootstrap()
    with webhook.service.client() as client:
        served = client.get("/client/lockstep.pyz")
    # What the Pod will check is what the service serves.
    assert served.content == archive()
    assert served.headers["ETag"] == f'"sha256:{init["args"][0]}"'
    _until(lambda: any(each["outcome"] == "resolved" for each in webhook.events("admission.warmed")))
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "cached"
    again = webhook.review(after)
    assert "patch" not in again
    assert "warnings" not in again


def test_the_volume_is_limited_once_the_size_is_known(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    pod = function(requirements=f"{name}\n")

    def limit() -> dict[str, Any]:
        volumes = patched(pod, _patch(webhook.review(pod, dryRun=True)))["spec"]["volumes"]
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
    _until(lambda: len(webhook.events("admission.warmed")) > seen)
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "resolved"


def test_to_observe_changes_nothing_and_tells(webhook: Webhook, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    before = webhook.metric("observe", "injected")
    response = webhook.review(function(requirements=f"{name}\n"), _OBSERVE)
    assert set(response) == {"uid", "allowed"}
    event = webhook.events("admission")[-1]
    assert (event["mode"], event["decision"], event["requirements"]) == ("observe", "injected", [name])
    assert (event["namespace"], event["workload"]) == ("shop", "orders")
    assert webhook.metric("observe", "injected") == before + 1
    answer = webhook.service.resolve(f"{name}\n", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    assert answer.json()["outcome"] == "resolved"


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
    for path in (_MUTATE, _OBSERVE):
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
        assert client.post(_MUTATE, json={}).status_code == 404


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
            _until(lambda: webhook.events("webhook.certificate-unusable"))
            webhook.answer(webhook.post(_MUTATE, b"{}", trusted=old))
    new_one = webhook.install("second")
    pid = webhook.service.pid

    def renewed() -> bool:
        try:
            webhook.answer(webhook.post(_MUTATE, b"{}", trusted=new_one))
        except httpx.ConnectError as failure:
            assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
            return False
        return True

    _until(renewed)
    assert webhook.service.pid == pid
    with pytest.raises(httpx.ConnectError):
        webhook.post(_MUTATE, b"{}", trusted=old)


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
        other.answer(other.post(_MUTATE, b"{}", trusted=webhook.folder / "tls.crt"))
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
