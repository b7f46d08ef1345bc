"""A Pod in, a Pod that starts from its bundle out; or the same Pod, and why."""

import copy
import dataclasses
from typing import Any

import pytest

from resolver.client.build import bootstrap
from resolver.domain.injection import Delivery, Injected, Owner, inject, mounts_for
from resolver.domain.pods import Left, workload
from resolver.domain.requests import Workload
from tests.support.functions import IMAGE, REQUIREMENTS, SERVER, assert_restricted, function, patched, plain

Document = dict[str, Any]

DELIVERY = Delivery(SERVER, "0" * 64, bootstrap(), client_image="registry.example.com/lockstep/client:1")
TEXT = {"lockstep.dev/requirements": "requests>=2\n"}

each_function = pytest.mark.parametrize("git", [False, True], ids=["inline", "git"])
with_sidecar = pytest.mark.parametrize("sidecar", [False, True], ids=["", "sidecar"])


def injected(pod: Document, delivery: Delivery = DELIVERY, **facts: Any) -> Document:
    found = inject(pod, delivery, **{"namespace": "shop", **facts})
    assert isinstance(found, Injected), found
    assert patched(pod, found.patch) == found.pod
    return found.pod


def left(pod: Document, delivery: Delivery = DELIVERY) -> Left:
    found = inject(pod, delivery, namespace="shop")
    assert isinstance(found, Left)
    return found


def init(pod: Document) -> Document:
    container: Document = pod["spec"]["initContainers"][-1]
    assert container["name"] == "lockstep"
    return container


def variables(container: Document) -> dict[str, Any]:
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names))
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def changed(pod: Document, **container: Any) -> Document:
    pod["spec"]["containers"][0] |= container
    return pod


@each_function
@with_sidecar
def test_a_function_comes_out_valid_and_restricted(git: bool, sidecar: bool) -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    before = function(git=git, sidecar=sidecar)
    untouched = copy.deepcopy(before)
    after = injected(before, dataclasses.replace(DELIVERY, audience="lockstep"), unpacked_size=10**9)
    assert before == untouched
    for pod in (before, after):
        named = copy.deepcopy(pod)
        schemas.validate(named, "1.33", strict=True)
        assert_restricted(named)


@each_function
@with_sidecar
def test_the_init_container_comes_last_and_is_the_functions_own_image(git: bool, sidecar: bool) -> None:
    before = function(git=git, sidecar=sidecar)
    after = injected(before)
    assert after["spec"]["initContainers"][:-1] == before["spec"]["initContainers"]
    assert init(after)["image"] == IMAGE
    assert init(after)["command"][:3] == ["python3", "-I", "-c"]
    assert "$(" not in "".join([*init(after)["command"], *init(after)["args"]])
    found = variables(init(after))
    assert found["LOCKSTEP_ON_FAILURE"] == "fallback"
    assert (found["LOCKSTEP_NAMESPACE"], found["LOCKSTEP_WORKLOAD"], found["LOCKSTEP_REVISION"]) == (
        "shop",
        "orders",
        "6d4cf56db6",
    )


@each_function
@with_sidecar
def test_twice_is_once(git: bool, sidecar: bool) -> None:
    assert left(injected(function(git=git, sidecar=sidecar))) == Left("already")


def test_what_an_inline_function_gets() -> None:
    after = injected(function())
    container = after["spec"]["containers"][0]
    found = variables(container)
    assert found["FUNC_HANDLER_DEPENDENCIES"] == "-r /deps/requirements.txt"
    assert found["PYTHONPATH"] == "/deps/site-packages:/kubeless/.local"
    assert "PATH" not in found  # the image's own holds
    assert {"name": "lockstep-deps", "mountPath": "/deps", "readOnly": True} in container["volumeMounts"]
    assert variables(init(after))["LOCKSTEP_REQUIREMENTS"] == REQUIREMENTS
    assert init(after)["args"] == ["0" * 64, "--pip-conf=/lockstep/pip/pip.conf"]
    assert {"name": "lockstep-deps", "emptyDir": {}} in after["spec"]["volumes"]


def test_what_a_git_function_gets() -> None:
    before = function(git=True)
    after = injected(before)
    assert "FUNC_HANDLER_DEPENDENCIES" not in variables(after["spec"]["containers"][0])
    assert "LOCKSTEP_REQUIREMENTS" not in variables(init(after))
    assert "--requirements=/git-repository/src/requirements.txt" in init(after)["args"]
    assert "--move-aside" in init(after)["args"]
    assert {"name": "git-repository", "mountPath": "/git-repository"} in init(after)["volumeMounts"]


def test_the_volumes_limit_is_twice_the_bundle_and_more() -> None:
    (volume,) = [each for each in injected(function(), unpacked_size=100 << 20)["spec"]["volumes"]
                 if each["name"] == "lockstep-deps"]  # fmt: skip
    assert volume["emptyDir"] == {"sizeLimit": "264Mi"}


@pytest.mark.parametrize(
    ("requests", "limit", "expected"),
    [
        ("50m", "150m", "1"),  # may vary: as much as there is to be had
        ("50m", "1600m", "1600m"),  # has more already
        ("500m", "500m", "500m"),  # Guaranteed, and stays it
        (None, "500m", "500m"),  # the same: its request is its limit
        ("0.1", "0.5", "1"),
        ("50m", None, None),
    ],
)
def test_the_cpu_limit(requests: str | None, limit: str | None, expected: str | None) -> None:
    resources = {"requests": {"cpu": requests} if requests else {}, "limits": {"cpu": limit} if limit else {}}
    found = init(injected(changed(function(), resources=resources)))["resources"]
    assert found["requests"] == resources["requests"]
    assert found["limits"].get("cpu") == expected
    own = dataclasses.replace(DELIVERY, cpu="0")
    assert init(injected(changed(function(), resources=resources), own))["resources"] == resources


def test_an_annotated_pod() -> None:
    path = [{"name": "PATH", "value": "/app/bin:/bin"}, {"name": "PYTHONPATH", "value": "/app"}]
    after = injected(plain(TEXT, env=path))
    found = variables(after["spec"]["containers"][0])
    assert found == {"PATH": "/deps/bin:/app/bin:/bin", "PYTHONPATH": "/deps/site-packages:/app"}
    assert variables(init(after))["LOCKSTEP_WORKLOAD"] == "report"


def test_a_dollar_in_an_annotation_is_no_reference() -> None:
    after = injected(plain({"lockstep.dev/requirements": "a # costs $(MUCH)\n"}))
    assert variables(init(after))["LOCKSTEP_REQUIREMENTS"] == "a # costs $$(MUCH)\n"


def test_requirements_in_a_configmap_are_mounted_where_they_are() -> None:
    after = injected(plain({"lockstep.dev/requirements-configmap": "reports/r.txt"}))
    (volume,) = [each for each in after["spec"]["volumes"] if "configMap" in each]
    assert volume["configMap"] == {
        "name": "reports",
        "items": [{"key": "r.txt", "path": "requirements.txt"}],
        "optional": True,  # without it the Pod would wait for ever
    }
    assert "--requirements=/lockstep/requirements/requirements.txt" in init(after)["args"]
    after = injected(plain({"lockstep.dev/requirements-configmap": "reports"}))
    assert after["spec"]["volumes"][-1]["configMap"]["items"][0]["key"] == "requirements.txt"


def test_an_image_without_python_gets_the_clients() -> None:
    target = {"lockstep.dev/python": "3.12", "lockstep.dev/platform": "manylinux_2_28_x86_64"}
    container = init(injected(plain(TEXT | target)))
    assert container["image"] == DELIVERY.client_image
    found = variables(container)
    assert (found["LOCKSTEP_PYTHON"], found["LOCKSTEP_PLATFORM"]) == ("3.12", "manylinux_2_28_x86_64")
    assert left(plain(TEXT | target), dataclasses.replace(DELIVERY, client_image=None)).code == "no-client-image"


def test_the_container_that_is_named() -> None:
    pod = plain(TEXT | {"lockstep.dev/container": "second"})
    pod["spec"]["containers"].append({"name": "second", "image": "registry.example.com/second:1"})
    after = injected(pod)
    assert after["spec"]["containers"][0] == pod["spec"]["containers"][0]
    assert init(after)["image"] == "registry.example.com/second:1"
    assert left(plain(TEXT | {"lockstep.dev/container": "third"})).code == "ambiguous"


@pytest.mark.parametrize(
    ("of_pod", "of_container", "user"),
    [
        ({"runAsUser": 1000, "runAsGroup": 2000}, {}, None),  # the Pod's holds for the init container too
        ({"runAsUser": 1000}, {"runAsUser": 1234}, 1234),
        ({}, {"runAsNonRoot": True}, None),  # the image's, which is not root
        ({}, {}, 10001),  # maybe root
        ({"runAsUser": 0}, {}, 10001),
    ],
)
def test_who_the_init_container_runs_as(of_pod: Document, of_container: Document, user: int | None) -> None:
    pod = plain(TEXT, securityContext=of_container)
    pod["spec"]["securityContext"] = of_pod
    context = init(injected(pod))["securityContext"]
    assert context.get("runAsUser") == user
    assert context["runAsNonRoot"] is True


def test_a_token_for_this_audience_alone() -> None:
    after = injected(function(), dataclasses.replace(DELIVERY, audience="lockstep"))
    (volume,) = [each for each in after["spec"]["volumes"] if "projected" in each]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "lockstep"
    assert variables(init(after))["LOCKSTEP_TOKEN_FILE"] == "/lockstep/token/token"
    assert volume["name"] not in [each["name"] for each in after["spec"]["containers"][0]["volumeMounts"]]


def _mounted(path: str) -> Document:
    pod = function()
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "tmp", "mountPath": path})
    return pod


def _nodejs() -> Document:
    pod = changed(function(), command=["sh", "-c", "npm install; npm start"])
    pod["spec"]["containers"][0]["env"][1]["value"] = "nodejs22"
    return pod


def _with(**entry: Any) -> Document:
    pod = function()
    pod["spec"]["containers"][0]["env"].append(entry)
    return pod


@pytest.mark.parametrize(
    ("pod", "code", "told"),
    [
        (plain({}), "not-asked", ""),
        (_nodejs(), "not-python", ""),
        (function(requirements=" \n"), "nothing-to-lock", ""),
        (function(requirements="-e .\n"), "refused", "line 1"),
        (function(requirements="requests\n--index-url https://packages.example.com/simple\n"), "refused", "line 2"),
        (function(requirements="$(DEPENDENCIES)"), "refused", "variables"),
        (function(requirements="# a\n" * 50_000), "refused", "bytes"),
        (_with(name="PIP_INDEX_URL", value="https://packages.example.com/simple"), "private-index", "index"),
        (_mounted("/etc/pip.conf"), "private-index", "pip.conf"),
        (_with(name="PYTHONPATH", valueFrom={"configMapKeyRef": {"name": "a", "key": "b"}}), "ambiguous", "PYTHONPATH"),
        (_with(name="FUNC_HANDLER_DEPENDENCIES", value="flask"), "ambiguous", "more than once"),
        (_mounted("/deps"), "taken", "/deps"),
        (_mounted("/deps/data"), "taken", "/deps/data"),
        (plain(TEXT | {"lockstep.dev/mode": "off"}), "off", ""),
        (plain(TEXT | {"lockstep.dev/requirements-configmap": "a"}), "ambiguous", "both"),
        (plain(TEXT | {"lockstep.dev/python": "3.12"}), "ambiguous", "go together"),
        (plain(TEXT | {"lockstep.dev/on-failure": "explode"}), "ambiguous", "either"),
        ({**plain(TEXT), "spec": {**plain(TEXT)["spec"], "os": {"name": "windows"}}}, "not-linux", "Linux"),
    ],
)
def test_pods_that_are_left_as_they_are(pod: Document, code: str, told: str) -> None:
    found = left(pod)
    assert found.code == code
    assert told in found.message
    assert bool(found.message) == bool(told)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": "alone"}, ("alone", None)),
        ({"generateName": "x-"}, None),
        (
            {
                "labels": {"controller-revision-hash": "db-7c9"},
                "ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}],
            },
            ("db", "db-7c9"),
        ),
        ({"ownerReferences": [{"kind": "Job", "name": "nightly-29401234", "controller": True}]}, ("nightly", None)),
        ({"ownerReferences": [{"kind": "Other", "name": "other"}], "name": "alone"}, ("alone", None)),
    ],
)
def test_whose_a_pod_is(metadata: Document, expected: tuple[str, str | None] | None) -> None:
    assert workload({"metadata": metadata, "spec": {}}, "shop") == (Workload("shop", *expected) if expected else None)


def test_a_template_learns_its_revision_when_its_pods_are_made() -> None:
    found = variables(init(injected(plain(TEXT), namespace=None, owner=Owner("checkout", "pod-template-hash", None))))
    assert found["LOCKSTEP_WORKLOAD"] == "checkout"
    assert found["LOCKSTEP_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert found["LOCKSTEP_REVISION"] == {"fieldRef": {"fieldPath": "metadata.labels['pod-template-hash']"}}


# --- Image volumes ----------------------------------------------------------------------------------------------------

REFERENCE = "registry.example.com/lockstep/shop/orders@sha256:" + "0" * 64
MUSL = ["musllinux_1_2_x86_64"]
NAMED = {"lockstep.dev/python": "3.12", "lockstep.dev/platform": "manylinux_2_28_x86_64"}


def could_mount(pod: Document, platforms: list[str] = MUSL) -> tuple[str, str] | None:
    found = inject(pod, DELIVERY, namespace="shop")
    assert isinstance(found, Injected), found
    return mounts_for(found, platforms)


@with_sidecar
def test_a_function_that_mounts_leaves_pip_nothing_and_has_no_init_container(sidecar: bool) -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    before = function(sidecar=sidecar)
    after = injected(before, image=REFERENCE)
    assert after["spec"]["initContainers"] == before["spec"]["initContainers"]
    container = after["spec"]["containers"][0]
    found = variables(container)
    assert found["FUNC_HANDLER_DEPENDENCIES"] == ""
    assert found["PYTHONPATH"] == "/deps/site-packages:/kubeless/.local"
    assert {"name": "lockstep-deps", "mountPath": "/deps", "readOnly": True} in container["volumeMounts"]
    volume = {"name": "lockstep-deps", "image": {"reference": REFERENCE, "pullPolicy": "IfNotPresent"}}
    assert after["spec"]["volumes"] == [*before["spec"]["volumes"], volume]
    schemas.validate(copy.deepcopy(after), "1.33", strict=True)
    assert_restricted(after)
    assert left(after) == Left("already")


def test_who_can_mount_is_certain() -> None:
    assert could_mount(function()) == ("3.12", "musllinux_1_2_x86_64")
    # Its requirements are not in its spec; its nodes may be of several kinds.
    assert could_mount(function(git=True)) is None
    assert could_mount(function(), [*MUSL, "musllinux_1_2_aarch64"]) is None


@pytest.mark.parametrize(
    ("image", "certain"),
    [
        ("mirror.example.com:5000/function-runtime-python312@sha256:" + "0" * 64, True),
        ("function-runtime-python312", True),
        ("registry.example.com/serverless/function-runtime-python313:main", False),
        ("registry.example.com/python:3.12-slim", False),
        ("registry.example.com/my-function-runtime-python312:1", False),
    ],
)
def test_a_function_in_an_image_of_its_own_fetches(image: str, certain: bool) -> None:
    assert (could_mount(changed(function(), image=image)) is not None) == certain


def test_an_annotated_pod_mounts_where_it_names_its_target_and_no_fallback() -> None:
    assert could_mount(plain(TEXT | NAMED | {"lockstep.dev/on-failure": "fail"})) == ("3.12", "manylinux_2_28_x86_64")
    assert could_mount(plain(TEXT | NAMED)) is None  # it may install from /deps/requirements.txt
    assert could_mount(plain(TEXT | {"lockstep.dev/on-failure": "fail"})) is None
    unknown = {"lockstep.dev/requirements-configmap": "deps", "lockstep.dev/on-failure": "fail"}
    assert could_mount(plain(unknown | NAMED)) is None


def test_what_is_in_the_way_of_a_fetch_is_in_the_way_of_a_mount() -> None:
    pod = function()
    pod["spec"]["volumes"].append({"name": "lockstep-deps", "emptyDir": {}})
    found = inject(pod, DELIVERY, namespace="shop", image=REFERENCE)
    assert isinstance(found, Left)
    assert found.code == "taken"
