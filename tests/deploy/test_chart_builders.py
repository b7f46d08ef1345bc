"""The chart: builders, each a Job in a namespace of their own; what the service may do there, and who reaches whom."""

from pathlib import Path

import pytest

from resolver.builders import builder_pods
from resolver.builds.job_manifest import COMPONENT, job
from resolver.builds.jobs import RIGHTS
from resolver.domain.builds import ANY
from resolver.kubernetes import ApiServer
from tests.deploy.tools import (
    BUILDERS,
    ROOT,
    Document,
    each_profile,
    of_kind,
    pods,
    rendered,
    settings_of,
)

MUSL = "cp312-musllinux_1_2_x86_64"


def test_by_default_there_are_none() -> None:
    documents = rendered("embedded")
    assert not of_kind(documents, "Role")
    assert "BUILDER" not in str(documents)


@each_profile
def test_the_service_has_exactly_the_rights_that_it_uses(values: str) -> None:
    documents = rendered(values, *BUILDERS)
    (role,), (binding,) = of_kind(documents, "Role"), of_kind(documents, "RoleBinding")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == set(RIGHTS)
    assert not [rule for rule in role["rules"] if set(rule) != {"apiGroups", "resources", "verbs"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    namespace = "builds" if values == "everything" else "lockstep-builders"
    assert {each["metadata"]["namespace"] for each in (role, binding)} == {namespace}
    (service,) = [pod for name, pod in pods(documents) if name == "service"]
    (subject,) = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == (service["spec"]["serviceAccountName"], "lockstep")


@each_profile
def test_what_the_service_is_told_makes_builders(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = rendered(values, *BUILDERS)
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    found = builder_pods(settings)
    assert found is not None
    (service,) = [pod for name, pod in pods(documents) if name == "service"]
    (container,) = service["spec"]["containers"]
    assert found.url == "http://10.1.2.3:8080"  # the Pod that asks, not the Service
    assert found.images[ANY] == container["image"]
    assert found.client_image == "registry.example.com/lockstep/client:1"
    assert (MUSL in found.images) == (values == "everything")


def test_another_image_for_builds_of_any_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = rendered("embedded", *BUILDERS, "--set", "builders.images.any=registry.example.com/python:3.13")
    found = builder_pods(settings_of(monkeypatch, tmp_path, documents)["service"])
    assert found is not None
    assert found.images == {ANY: "registry.example.com/python:3.13"}


def test_the_client_is_where_its_image_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = builder_pods(settings_of(monkeypatch, tmp_path, rendered("embedded", *BUILDERS))["service"])
    assert found is not None
    made = job(found, ANY, "lockstep-build-1", 300, user=61184, replica="lockstep-0")
    (client,) = made["spec"]["template"]["spec"]["initContainers"]
    place = client["command"][-2]
    assert place.endswith("/lockstep.pyz")
    assert f'ENTRYPOINT ["python3", "-I", "{place}"]' in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("create", ["true", "false"])
def test_their_namespace_is_restricted(create: str) -> None:
    documents = rendered("embedded", *BUILDERS, "--set", f"builders.namespace.create={create}")
    namespaces = of_kind(documents, "Namespace")
    assert len(namespaces) == (create == "true")
    for namespace in namespaces:
        assert namespace["metadata"]["name"] == "lockstep-builders"
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# --- Who reaches whom -------------------------------------------------------------------------------------------------


def _of_builders(documents: tuple[Document, ...]) -> Document:
    (policy,) = [each for each in of_kind(documents, "NetworkPolicy") if each["metadata"]["namespace"] != "lockstep"]
    found: Document = policy["spec"]
    return found


@pytest.mark.parametrize("policies", ["true", "false"])
@each_profile
def test_builders_reach_the_service_and_nothing_else(values: str, policies: str) -> None:
    """Also where the release has no policies of its own."""
    documents = rendered(values, *BUILDERS, "--set", f"networkPolicy.enabled={policies}")
    spec = _of_builders(documents)
    assert spec["podSelector"] == {}  # whatever is in that namespace
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    (rule,) = spec["egress"]  # no name service either
    ((peer,), (port,)) = rule["to"], rule["ports"]
    (service,) = [pod for name, pod in pods(documents) if name == "service"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "lockstep"}
    selected = peer["podSelector"]["matchLabels"].items()
    assert [name for name, pod in pods(documents) if selected <= pod["metadata"]["labels"].items()] == ["service"]
    (container,) = service["spec"]["containers"]
    assert {"name": port["port"], "containerPort": 8080} in container["ports"]


@each_profile
def test_the_service_lets_builders_in_and_reaches_the_api_server(
    values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = rendered(values, *BUILDERS, "--set", "auth.issuer=https://issuer.example.com")
    (policy,) = [each for each in of_kind(documents, "NetworkPolicy") if each["metadata"]["name"] == "lockstep"]
    (rule,) = [each for each in policy["spec"]["ingress"] if each["ports"][0]["port"] == "http"]
    found = builder_pods(settings_of(monkeypatch, tmp_path, documents)["service"])
    assert found is not None
    made = job(found, ANY, "lockstep-build-1", 300, user=61184, replica="lockstep-0")
    (peer,) = [each for each in rule["from"] if each.get("podSelector", {}).get("matchLabels") == COMPONENT]
    assert peer["podSelector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": made["metadata"]["namespace"]}
    # Whoever issues the tokens of Pods, the service shows its own where it is read.
    (service,) = [pod for name, pod in pods(documents) if name == "service"]
    (container,) = service["spec"]["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "api-server"]
    assert mount["mountPath"] == str(ApiServer("").folder)
    ports = [6443] if values == "everything" else [443, 6443]
    assert ports in [[port["port"] for port in each["ports"]] for each in policy["spec"]["egress"]]
