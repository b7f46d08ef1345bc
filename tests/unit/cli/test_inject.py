"""`lockstep inject`: what the webhook does, done to a file."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver.domain.injection import Delivery, Injected, inject
from tests.support.functions import SERVER, function, plain
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Said, Service

Document = dict[str, Any]

TEXT = {"lockstep.dev/requirements": "requests>=2\n"}
CLIENT = b"the client as the service serves it"


def file(folder: Path, *documents: Any) -> str:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


@pytest.fixture
def injecting(run: Run, tmp_path: Path) -> Run:
    """Runs `inject` with the client at hand."""
    client = tmp_path / "lockstep.pyz"
    client.write_bytes(CLIENT)
    return lambda *arguments: run("inject", "--client", str(client), *arguments)


def template(kind: str, pod: Document) -> Document:
    inner = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    job: Document = {"template": inner}
    spec = {"schedule": "@daily", "jobTemplate": {"spec": job}} if kind == "CronJob" else job
    return {"apiVersion": "any/v1", "kind": kind, "metadata": {"name": "checkout"}, "spec": spec}


def inits(spec: Document) -> list[Document]:
    return [each for each in spec.get("initContainers", []) if each["name"] == "lockstep"]


def test_a_pod_is_what_the_webhook_makes_of_it(injecting: Run, tmp_path: Path) -> None:
    ran = injecting("-f", file(tmp_path, function()), "--server", f"{SERVER}/")
    assert ran.code == 0, ran.err
    (document,) = yaml.safe_load_all(ran.out)
    text = inits(document["spec"])[0]["command"][-1]
    delivery = Delivery(SERVER, hashlib.sha256(CLIENT).hexdigest(), text, audience="lockstep")
    found = inject(function(), delivery, namespace="shop")
    assert isinstance(found, Injected)
    assert document == found.pod


def test_the_client_is_the_one_that_the_service_serves(run: Run, tmp_path: Path, service: Service) -> None:
    service.says("GET", "/client/lockstep.pyz", Said(CLIENT))
    ran = run("inject", "-f", file(tmp_path, function()), "--server", service.url)
    assert ran.code == 0, ran.err
    assert hashlib.sha256(CLIENT).hexdigest() in ran.out


def test_without_its_client_nothing_is_printed(run: Run, tmp_path: Path, service: Service) -> None:
    service.says("GET", "/client/lockstep.pyz", Said(b"", status=503))
    ran = run("inject", "-f", file(tmp_path, function()), "--server", service.url)
    assert (ran.code, ran.out) == (69, "")
    assert "--client FILE" in ran.err
    assert run("inject", "-f", file(tmp_path, function()), "--server", service.url, "--client", "absent").code == 64


def test_what_is_printed_is_taken_again_and_left(
    injecting: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_SERVER", SERVER)
    once = injecting("-f", file(tmp_path, function()))
    monkeypatch.setattr("sys.stdin", io.StringIO(once.out))
    twice = injecting("-f", "-")
    assert (twice.code, twice.out) == (0, once.out)
    assert "already" in twice.err


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"])
def test_templates(injecting: Run, tmp_path: Path, kind: str) -> None:
    ran = injecting("-f", file(tmp_path, template(kind, plain(TEXT))), "--server", SERVER)
    assert ran.code == 0, ran.err
    spec = yaml.safe_load(ran.out)["spec"]
    spec = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
    (init,) = inits(spec["template"]["spec"])
    found = {each["name"]: each.get("value", each.get("valueFrom")) for each in init["env"]}
    assert found["LOCKSTEP_WORKLOAD"] == "checkout"
    assert found["LOCKSTEP_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert ("LOCKSTEP_REVISION" in found) == ("Job" not in kind)


def test_other_documents_pass_as_they_are(injecting: Run, tmp_path: Path) -> None:
    others = [{"kind": "Service", "metadata": {"name": "a"}}, plain({})]
    path = file(tmp_path, *others, {"kind": "List", "items": [plain(TEXT)]})
    ran = injecting("-f", path, "--server", SERVER, "--namespace", "shop")
    assert ran.code == 0, ran.err
    *same, listed = yaml.safe_load_all(ran.out)
    assert same == others
    assert inits(listed["items"][0]["spec"])


def test_the_operators_part(injecting: Run, tmp_path: Path) -> None:
    target = {"lockstep.dev/python": "3.12", "lockstep.dev/platform": "musllinux_1_2_x86_64"}
    flags = ["--server", SERVER, "--client-image", "registry.example.com/client:1", "--audience", "elsewhere"]
    ran = injecting("-f", file(tmp_path, plain(TEXT | target)), *flags)
    assert ran.code == 0, ran.err
    (init,) = inits(yaml.safe_load(ran.out)["spec"])
    assert init["image"] == "registry.example.com/client:1"
    assert '"audience": "elsewhere"' in json.dumps(yaml.safe_load(ran.out)["spec"]["volumes"])
    bare = injecting("-f", file(tmp_path, plain(TEXT)), "--server", SERVER, "--audience", "")
    assert bare.code == 0, bare.err
    assert "serviceAccountToken" not in bare.out


def test_requirements_that_no_service_takes_are_65(injecting: Run, tmp_path: Path) -> None:
    pod = plain({"lockstep.dev/requirements": "requests\n-e .\n"})
    ran = injecting("-f", file(tmp_path, pod), "--server", SERVER)
    assert (ran.code, ran.out) == (65, "")
    assert "Pod report" in ran.err
    assert "line 2" in ran.err


@pytest.mark.parametrize(
    ("content", "flags", "told"),
    [
        ("kind: Pod\nmetadata: {name: a}\n", ["--server", SERVER], "no manifest"),
        ("a: [", ["--server", SERVER], "not YAML"),
        ("- a\n", ["--server", SERVER], "no manifest"),
        ("kind: Service", [], "--server"),
        ("kind: Service", ["--server", "nowhere"], "--server"),
        ("kind: Service", ["--server", SERVER, "--cpu", "Infinity"], "--cpu"),
        (None, ["--server", SERVER], "cannot read"),
    ],
)
def test_what_makes_no_sense_is_64(
    injecting: Run, tmp_path: Path, content: str | None, flags: list[str], told: str
) -> None:
    path = tmp_path / "manifest.yaml"
    if content is not None:
        path.write_text(content)
    ran = injecting("-f", str(path), *flags)
    assert (ran.code, ran.out) == (64, "")
    assert told in ran.err
