"""Arbitrary valid Pods in, valid Pods out; twice is once; nothing else of the Pod is touched."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from resolver.domain.injection import Delivery, Injected, inject
from resolver.domain.pods import Left
from tests.support.functions import SERVER, patched

Document = dict[str, Any]

_IMAGE = "registry.example.com/lockstep/shop/any@sha256:" + "0" * 64
_FUNCTION = {"serverless.kyma-project.io/function-name": "f"}
_DELIVERIES = st.builds(
    Delivery,
    st.just(SERVER),
    st.just("0" * 64),
    st.just("pass"),
    client_image=st.sampled_from([None, "registry.example.com/lockstep/client:1"]),
    cpu=st.sampled_from(["0", "1", "500m"]),
    audience=st.sampled_from([None, "lockstep"]),
)
_names = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_good = st.sampled_from(["requests\n", "requests>=2\narrow", "a # $B\n", "# é\n"])
_texts = _good | _good | st.sampled_from(["", "-e .", "$(A)"]) | st.text(max_size=20)
_uids = st.sampled_from([0, 1, 1000, 65534])
_contexts = st.fixed_dictionaries({}, optional={"runAsUser": _uids, "runAsGroup": _uids, "runAsNonRoot": st.booleans()})
_cpus = st.sampled_from(["50m", "0.1", "1", "1500m", "2"])
_amounts = st.fixed_dictionaries({}, optional={"cpu": _cpus, "memory": st.sampled_from(["64Mi", "1Gi"])})
_resources = st.fixed_dictionaries({}, optional={"requests": _amounts, "limits": _amounts})
_ELSEWHERE: Document = {"valueFrom": {"configMapKeyRef": {"name": "settings", "key": "key"}}}
_variable = st.sampled_from(["PATH", "PYTHONPATH", "A", "B", "C"]).flatmap(
    lambda name: st.sampled_from([{"name": name}, {"name": name, "value": "/x:$(A)"}, {"name": name, **_ELSEWHERE}])
)
_variables = st.lists(_variable, max_size=4, unique_by=lambda each: each["name"])
_paths = st.sampled_from(["/data", "/var/x", "/kubeless", "/depsonly"])


def _seldom(value: Any, instead: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).map(lambda number: value if number == 11 else instead)


@st.composite
def _containers(draw: st.DrawFn, name: str) -> Document:
    mounts = draw(st.lists(_paths | _seldom("/deps/x", "/y"), max_size=3, unique=True))
    optional: Document = {
        "env": draw(_variables),
        "resources": draw(_resources),
        "securityContext": draw(_contexts),
        "imagePullPolicy": draw(st.sampled_from(["Always", "Never"])),
        "volumeMounts": [{"name": "data", "mountPath": path} for path in mounts],
    }
    wanted = draw(st.sets(st.sampled_from(sorted(optional))))
    return {"name": name, "image": "registry.example.com/any:1"} | {key: optional[key] for key in sorted(wanted)}


_annotations = st.fixed_dictionaries(
    {},
    optional={
        "lockstep.dev/on-failure": _seldom("?", "fail"),
        "lockstep.dev/mode": _seldom("off", "mutate"),
        "lockstep.dev/container": _seldom("other", "first"),
    },
)
_target = st.sampled_from([{}, {"lockstep.dev/python": "3.12", "lockstep.dev/platform": "manylinux_2_28_x86_64"}])


@st.composite
def pods(draw: st.DrawFn) -> Document:
    names = ["first", *draw(st.lists(_names, max_size=3, unique=True).filter(lambda found: "first" not in found))]
    if draw(_seldom(True, False)):
        names.append("lockstep")
    split = draw(st.integers(1, len(names)))
    spec: Document = {"containers": [draw(_containers(name)) for name in names[:split]]}
    if split < len(names) or draw(st.booleans()):
        spec["initContainers"] = [draw(_containers(name)) for name in names[split:]]
    volumes = ["data", *(["lockstep-deps"] if draw(_seldom(True, False)) else [])]
    metadata: Document = {"name": "any", "labels": draw(st.sampled_from([{}, {"pod-template-hash": "abc"}]))}
    first = spec["containers"][0]
    match draw(st.sampled_from(["text", "text", "configmap", "inline", "inline", "git", "neither"])):
        case "text":
            metadata["annotations"] = draw(_annotations) | draw(_target) | {"lockstep.dev/requirements": draw(_texts)}
        case "configmap":
            named = {"lockstep.dev/requirements-configmap": draw(st.sampled_from(["a", "a/b"]))}
            metadata["annotations"] = draw(_annotations) | draw(_target) | named
        case "inline":
            metadata["labels"] = metadata["labels"] | _FUNCTION
            given = draw(st.sampled_from([{"value": draw(_texts)}, {"value": draw(_texts)}, _ELSEWHERE]))
            own = [{"name": "FUNC_RUNTIME", "value": draw(_seldom("nodejs22", "python312"))}]
            first["env"] = [*own, {"name": "FUNC_HANDLER_DEPENDENCIES", **given}, *first.get("env", [])]
        case "git":
            metadata["labels"] = metadata["labels"] | _FUNCTION
            first["command"] = ["sh", "-c", "pip install -r requirements.txt"]
            volumes.append("git")
            mount = {"name": "git", "mountPath": "/git-repository"}
            first["volumeMounts"] = [*first.get("volumeMounts", []), mount]
            cloner = {"name": "clone", "image": "registry.example.com/git:1", "volumeMounts": [{**mount}]}
            spec["initContainers"] = [cloner, *spec.get("initContainers", [])]
    # What is mounted is there.
    spec["volumes"] = [{"name": name, "emptyDir": {}} for name in volumes]
    if draw(st.booleans()):
        spec["securityContext"] = draw(_contexts)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pods(), _DELIVERIES, st.none() | st.integers(0, 10**12), st.sampled_from([None, None, _IMAGE]))
def test_any_pod(pod: Document, delivery: Delivery, size: int | None, image: str | None) -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    schemas.validate(copy.deepcopy(pod), "1.33", strict=True)
    before = copy.deepcopy(pod)
    found = inject(pod, delivery, namespace="shop", unpacked_size=size, image=image)
    assert pod == before
    event(found.code if isinstance(found, Left) else "mounted" if image else "injected")
    if not isinstance(found, Injected):
        return
    after = patched(pod, found.patch)
    schemas.validate(copy.deepcopy(after), "1.33", strict=True)
    again = inject(after, delivery, namespace="shop", unpacked_size=size)
    assert not isinstance(again, Injected)
    assert (again.code, again.message) == ("already", "")
    _assert_added_alone(pod, after, found.asked.container, mounted=image is not None)


def _assert_added_alone(pod: Document, after: Document, position: int, *, mounted: bool) -> None:
    spec, changed = pod["spec"], after["spec"]
    assert {**pod, "spec": None} == {**after, "spec": None}
    parts = {"volumes", "initContainers", "containers"}
    assert {name: value for name, value in spec.items() if name not in parts} == {
        name: value for name, value in changed.items() if name not in parts
    }
    inits = changed.get("initContainers", [])
    assert inits[: len(inits) - (not mounted)] == spec.get("initContainers", [])
    assert changed["volumes"][: len(spec["volumes"])] == spec["volumes"]
    volumes = [volume["name"] for volume in changed["volumes"]]
    assert len(volumes) == len(set(volumes))
    names = [each["name"] for each in (*changed["containers"], *inits)]
    assert len(names) == len(set(names))
    assert mounted or {mount["name"] for mount in inits[-1]["volumeMounts"]} <= set(volumes)
    for number, (mine, theirs) in enumerate(zip(spec["containers"], changed["containers"], strict=True)):
        if number != position:
            assert mine == theirs
            continue
        assert {**mine, "env": 0, "volumeMounts": 0} == {**theirs, "env": 0, "volumeMounts": 0}
        ours = {"PATH", "PYTHONPATH", "FUNC_HANDLER_DEPENDENCIES"}
        kept = [each for each in mine.get("env", []) if each["name"] not in ours]
        assert [each for each in theirs["env"] if each["name"] not in ours] == kept
        assert theirs["volumeMounts"][:-1] == mine.get("volumeMounts", [])
        paths = [mount["mountPath"] for mount in theirs["volumeMounts"]]
        assert len(paths) == len(set(paths))
