"""The admission webhook of a running service, as the API server talks to it."""

import base64
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.certificates import certificate
from tests.support.index import PackageIndex
from tests.support.service import Service

MUTATE = "/webhooks/v1/pods"
OBSERVE = "/webhooks/v1/pods/observe"

_SECONDS = 30


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

    def review(self, pod: Any, path: str = MUTATE, **changes: Any) -> dict[str, Any]:
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
        deadline = time.monotonic() + _SECONDS
        while True:
            response = self.answer(self.post(path, json.dumps(review).encode()))
            assert response["uid"] == request["uid"]
            # An API server waits for half a second, in which a busy machine may not come to it.
            if not any("no time" in each for each in response.get("warnings", ())) or time.monotonic() > deadline:
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


@contextmanager
def serving(folder: Path, index: PackageIndex, **settings: str) -> Iterator[Webhook]:
    """A service with its webhook, on an index and with further settings."""
    environment = {
        "LOCKSTEP_WEBHOOK_LISTEN": "127.0.0.1:0",
        "LOCKSTEP_WEBHOOK_CERT": str(folder / "tls.crt"),
        "LOCKSTEP_WEBHOOK_KEY": str(folder / "tls.key"),
        "LOCKSTEP_WEBHOOK_SERVER": "http://lockstep.lockstep.svc:8080",
        **{f"LOCKSTEP_{name.upper()}": value for name, value in settings.items()},
    }
    service = Service(folder / "data", index_url=index.url, environment=environment)
    webhook = Webhook(service, folder)
    webhook.install("first")
    with service:
        yield webhook


def until(holds: Callable[[], object]) -> None:
    """Wait for it, a bounded time."""
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The patch of a response."""
    found = json.loads(base64.b64decode(response["patch"], validate=True))
    assert isinstance(found, list)
    return found
