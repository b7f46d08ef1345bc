"""The chart: what Helm, the Kubernetes schemas and the service's own settings say of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver.cli import warm_file
from resolver.webhook import delivery
from tests.deploy.tools import (
    BUILDERS,
    CHART,
    ROOT,
    VALUES,
    WEBHOOK,
    Document,
    each_profile,
    environment_of,
    of_kind,
    pods,
    rendered,
    run,
    settings_of,
    template,
    tool,
)

_KUBERNETES = "1.33"
# Of operators that bring their own schemas; what is in them is tested below, and by promtool.
_FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "Certificate", "Issuer"}


def _schemas() -> Any:
    return pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)")


IMAGE_VOLUMES = (
    "--set",
    "webhook.imageVolumes.enabled=true,webhook.imageVolumes.registry=registry.example.com/lockstep",
)
# Values that are told as one: they are passed on as Kubernetes or the service has them.
_WHOLE = {"resources", "settings", "file", "labels", "jobs", "issuerRef"}


@pytest.mark.parametrize("flags", [(), (*WEBHOOK, *BUILDERS)], ids=["", "webhook, builders"])
@each_profile
def test_lint(values: str, flags: tuple[str, ...]) -> None:
    done = run(tool("helm"), "lint", "--strict", CHART, *(f"--values={path}" for path in VALUES[values]), *flags)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "flags",
    [(), WEBHOOK, (*WEBHOOK, *IMAGE_VOLUMES), BUILDERS],
    ids=["", "webhook", "image volumes", "builders"],
)
@each_profile
def test_kubernetes_schemas(values: str, flags: tuple[str, ...]) -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    documents = rendered(values, *flags)
    for document in documents:
        if document["kind"] not in _FOREIGN:
            schemas.validate(document, _KUBERNETES, strict=True)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(names) == len(set(names))


def test_the_rendered_manifest_is_current(tmp_path: Path) -> None:
    made = tmp_path / "lockstep.yaml"
    done = run("make", "--silent", "manifests", f"MANIFEST={made}", f"HELM={tool('helm')}")
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (ROOT / "deploy" / "lockstep.yaml").read_text(), "run `make manifests`"


def test_the_manifest_is_valid_where_no_helm_is() -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    documents = [*yaml.safe_load_all((ROOT / "deploy" / "lockstep.yaml").read_text())]
    for document in documents:
        schemas.validate(document, _KUBERNETES, strict=True)
    assert {document["metadata"].get("namespace") for document in documents} == {None, "lockstep"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--set", "profile=shared"], "database.secret.name"),
        (["--set", "profile=shared", "--set", "database.secret.name=db"], "objectStorage.url"),
        (["--set", "profil=shared"], "profil"),
        (["--set", "settings.data_dir=/data"], "data_dir"),
        (["--set", "index.url=https://user:secret@packages.example.com/simple"], "index.url"),
        (["--set", "service.port=443"], "service.port"),
        (["--set", "extraEnv[0].name=LOCKSTEP_ENGINE"], "extraEnv"),
        (["--set", "webhook.tls.mode=secret"], "webhook.tls"),
        (["--set", "settings.auth=static"], "auth"),
        (["--set", "auth.issuer=http://issuer.example.com"], "auth.issuer"),
        (["--set", "auth.operators[0]=ada"], "auth.operators"),
        (["--set", "webhook.imageVolumes.enabled=true"], "webhook.imageVolumes.registry"),
        (["--set", "webhook.imageVolumes.registry=https://registry.example.com"], "webhook.imageVolumes.registry"),
        ([*WEBHOOK, *IMAGE_VOLUMES, "--kube-version", "1.32"], "webhook.imageVolumes"),
        (["--set", "httpRoute.enabled=true"], "httpRoute"),
        (["--set", "builders.enabled=true"], "builders.clientImage"),
        ([*BUILDERS, "--set", "builders.images.cp312=registry.example.com/python"], "builders.images"),
        ([*BUILDERS, "--set", "builders.namespace.name=lockstep"], "builders.namespace.name"),
        (["--set", "settings.builder_url=http://10.1.2.3:8080"], "builder_url"),
    ],
)
def test_values_that_make_no_sense_are_refused(flags: list[str], told: str) -> None:
    done = template(*flags)
    assert done.returncode != 0
    assert told in done.stderr


def test_every_value_is_in_the_readme() -> None:
    known = (CHART / "README.md").read_text()

    def names(values: Document, path: str = "") -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict) and value and name not in _WHOLE:
                yield from names(value, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    def told(name: str) -> bool:
        # `a.b`, or `.b` on the row that begins with `a.…`
        group, _, last = name.rpartition(".")
        rows = [row for row in known.splitlines() if row.startswith("|")]
        return any(
            f"`{name}`" in row or (group and row.startswith(f"| `{group}.") and f"`.{last}`" in row) for row in rows
        )

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [name for name in names(values) if not told(name)] == []


# --- Pods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), WEBHOOK], ids=["", "webhook"])
@each_profile
def test_every_pod_is_restricted(values: str, flags: tuple[str, ...]) -> None:
    """Pod Security Standards, "restricted", with a read-only root beside."""
    seen = set()
    for name, pod in pods(rendered(values, *flags)):
        seen.add(name)
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        for volume in spec["volumes"]:
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
    assert seen == {"service", "lockstep-gc", "lockstep-fsck", "lockstep-warm"}


@each_profile
def test_every_variable_is_a_setting(values: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = settings_of(monkeypatch, tmp_path, rendered(values))
    assert set(read) == {"service", "lockstep-gc", "lockstep-fsck"}
    service = read["service"]
    assert service.listen == "0.0.0.0:8080"
    assert service.gc_every == 0  # the CronJob collects
    assert service.data_dir == Path("/var/lib/lockstep")
    for each in read.values():
        assert each.database_url == service.database_url
        assert each.blob_url == service.blob_url
        assert each.keep_revisions == service.keep_revisions
    assert (service.database_url is None) == (values == "embedded")
    if values == "everything":
        assert [index.name for index in service.indexes] == ["internal", "pypi"]
        assert service.engine_memory == 8 << 30
        assert service.platforms == ["musllinux_1_2_x86_64"]


def test_every_variable_of_the_webhook_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = ("--set", "webhook.clientImage=registry.example.com/lockstep/client:1")
    documents = rendered("embedded", *WEBHOOK, *image)
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    told = delivery(settings, "0" * 64, "")
    assert told.client_image == image[1].partition("=")[2]
    # Pods ask the Service that is there, at its port.
    (service,) = of_kind(documents, "Service")
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "http")
    assert told.server == f"http://{service['metadata']['name']}.lockstep.svc:{port}"


def test_image_volumes_are_asked_for_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings_of(monkeypatch, tmp_path, rendered("embedded", *WEBHOOK))["service"].webhook_image_registry is None
    documents = rendered("embedded", *WEBHOOK, *IMAGE_VOLUMES, "--set", "webhook.imageVolumes.pullSecret=pulls")
    settings = settings_of(monkeypatch, tmp_path, documents)["service"]
    assert settings.webhook_image_registry == "registry.example.com/lockstep"
    (deployment,) = of_kind(documents, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (secret,) = [each["secret"] for each in spec["volumes"] if each["name"] == "registry"]
    assert secret["secretName"] == "pulls"
    (container,) = spec["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "registry"]
    login = environment_of(container, documents)["REGISTRY_AUTH_FILE"]
    assert login == f"{mount['mountPath']}/.dockerconfigjson"  # the key of such a Secret


# --- Jobs -------------------------------------------------------------------------------------------------------------


@each_profile
def test_jobs_take_turns_and_end(values: str) -> None:
    jobs = of_kind(rendered(values), "CronJob")
    assert len(jobs) == 3
    for job in jobs:
        spec = job["spec"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["startingDeadlineSeconds"] > 0
        assert spec["failedJobsHistoryLimit"] > 0
        inner = spec["jobTemplate"]["spec"]
        assert inner["activeDeadlineSeconds"] > 0
        pod = inner["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (rule,) = inner["podFailurePolicy"]["rules"]
        assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


@each_profile
def test_the_warm_file_is_one(values: str, tmp_path: Path) -> None:
    (given,) = [each for each in of_kind(rendered(values), "ConfigMap") if "warm.yaml" in each["data"]]
    file = tmp_path / "warm.yaml"
    file.write_text(given["data"]["warm.yaml"])
    asked = warm_file.read(file)
    assert asked["recent"] == {"days": 7, "limit": 200}
    assert [entry["name"] for entry in asked["entries"]] == (["checkout"] if values == "everything" else [])


def test_jobs_on_a_volume_run_where_the_service_does() -> None:
    documents = rendered("embedded")
    (deployment,) = of_kind(documents, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for name, pod in pods(documents):
        if name in ("lockstep-gc", "lockstep-fsck"):
            (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["labelSelector"]["matchLabels"].items() <= labels.items()
            (claim,) = [each["persistentVolumeClaim"] for each in pod["spec"]["volumes"] if each["name"] == "data"]
            assert claim == {"claimName": of_kind(documents, "PersistentVolumeClaim")[0]["metadata"]["name"]}


# --- Who may call whom, and what may be asked of the cluster ----------------------------------------------------------


@pytest.mark.parametrize("flags", [(), WEBHOOK], ids=["", "webhook"])
@each_profile
def test_every_pod_has_a_network_policy_both_ways(values: str, flags: tuple[str, ...]) -> None:
    documents = rendered(values, *flags)
    policies = [each for each in of_kind(documents, "NetworkPolicy") if each["metadata"]["namespace"] == "lockstep"]
    for name, pod in pods(documents):
        (policy,) = [each for each in policies if _selects(each["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert bool(policy["spec"]["ingress"]) == (name == "service")
        # No rule without ports: that would allow all of them.
        for rule in [*policy["spec"]["ingress"], *policy["spec"]["egress"]]:
            assert rule["ports"]
        for rule in policy["spec"]["ingress"]:  # the API server alone stands outside of what selectors name
            assert "from" in rule or (rule["ports"][0]["port"] == "webhook" and values != "everything")
    (service,) = of_kind(documents, "Service")
    (deployment,) = of_kind(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert not any(_selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
                   for name, pod in pods(documents) if name != "service")  # fmt: skip


def _selects(selector: Document, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def test_replicas_are_spread_scaled_and_kept() -> None:
    documents = rendered("shared")
    (deployment,) = of_kind(documents, "Deployment")
    assert "replicas" not in deployment["spec"]  # the autoscaler's
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    (budget,) = of_kind(documents, "PodDisruptionBudget")
    for selector in [budget["spec"]["selector"], *(each["labelSelector"] for each in spread)]:
        assert _selects(selector, labels)
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


# --- Webhook ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["certManager", "generated", "secret"])
def test_the_webhook_never_stands_in_the_way(mode: str) -> None:
    mine = "webhook.tls.secret=mine,webhook.tls.caBundle=Zm9v" if mode == "secret" else ""
    flags = ("--set", f"webhook.tls.mode={mode},{mine}")
    documents = rendered("embedded", *WEBHOOK, *flags)
    (configuration,) = of_kind(documents, "MutatingWebhookConfiguration")
    (service,) = of_kind(documents, "Service")
    (deployment,) = of_kind(documents, "Deployment")
    modes = {}
    for webhook in configuration["webhooks"]:
        assert webhook["failurePolicy"] == "Ignore"
        assert webhook["sideEffects"] == "NoneOnDryRun"
        assert webhook["reinvocationPolicy"] == "IfNeeded"
        assert webhook["timeoutSeconds"] <= 2
        by_mode, by_name = webhook["namespaceSelector"]["matchExpressions"]
        assert by_mode["key"] == "lockstep.dev/mode"
        assert (by_name["operator"], set(by_name["values"])) == (
            "NotIn",
            {"kube-system", "kube-node-lease", "lockstep"},
        )
        target = webhook["clientConfig"]["service"]
        assert target["name"] == service["metadata"]["name"]
        assert target["port"] in [port["port"] for port in service["spec"]["ports"]]
        modes[by_mode["values"][0]] = target["path"]
        assert ("caBundle" in webhook["clientConfig"]) == (mode != "certManager")
    assert modes == {"mutate": "/webhooks/v1/pods", "observe": "/webhooks/v1/pods/observe"}

    (mounted,) = [each["secret"] for each in deployment["spec"]["template"]["spec"]["volumes"] if "secret" in each]
    if mode == "certManager":
        (certificate,) = of_kind(documents, "Certificate")
        assert certificate["spec"]["secretName"] == mounted["secretName"]
        assert "lockstep.lockstep.svc" in certificate["spec"]["dnsNames"]
    if mode == "generated":
        (secret,) = of_kind(documents, "Secret")
        assert secret["metadata"]["name"] == mounted["secretName"]
        assert {webhook["clientConfig"]["caBundle"] for webhook in configuration["webhooks"]} == {
            secret["data"]["ca.crt"]
        }
    if mode == "secret":
        assert mounted["secretName"] == "mine"


def test_no_credential_is_in_the_values() -> None:
    """Secrets are named, never held: nothing rendered has one, but for the certificate that Helm made."""
    for values in VALUES:
        assert not of_kind(rendered(values), "Secret")
    assert re.search(r"(?i)password|token:", (CHART / "values.yaml").read_text()) is None
