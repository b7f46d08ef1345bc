"""What makes a Pod start from a bundle: one volume, one init container, two variables. A Pod in, a patch out.

The init container stands behind all that are there (a clone has been made, a native sidecar gives it the network), and
runs in the image of the container that gets the packages: so interpreter and libc are the right ones, and no further
image is pulled. Where the bundle's image is told, the Pod mounts that, with nothing to be done before it starts. Pure,
and twice is once: a Pod that has the one or the other is left as it is.
"""

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from resolver.domain.pods import DEPENDENCIES, Asked, Document, Doubt, Left, asked, variable, workload
from resolver.domain.requests import Workload

NAME = "lockstep"
TARGET = "/deps"

_VOLUME = "lockstep-deps"
_TEXT_VOLUME = "lockstep-requirements"
_TOKEN_VOLUME = "lockstep-token"  # noqa: S105 - a volume's name
_TEXT = "/lockstep/requirements"
_TOKEN = "/lockstep/token"  # noqa: S105 - a path
_PIP_CONF = "/lockstep/pip"
_OURS = f"{TARGET}/requirements.txt"
_UID = 10001
_FUNCTIONS_OWN = "/kubeless/.local"  # where pip puts what a Function needs, and the image's own PYTHONPATH has it
_SECONDS = 120
_HEADROOM = 64 << 20
_MIB = 1 << 20
_TOKEN_SECONDS = 3600
_RUNTIME_IMAGE = re.compile(r"function-runtime-python(\d)(\d+)")
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m)?")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How Pods get their bundles: the operator's part.

    `server` is where Pods reach the service, `client` the SHA-256 of its client, `bootstrap` the program that brings
    that. `client_image` runs where an image has no Python; `cpu` is the CPU limit of the init container where that of
    the function is lower ("0": the function's own); `audience` that of the token which it shows (None: none).
    """

    server: str
    client: str
    bootstrap: str
    client_image: str | None = None
    cpu: str = "1"
    audience: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no Pod could be given."""
        url = urlsplit(self.server)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise ValueError("server: not the URL of a service, such as http://lockstep.lockstep.svc:8080")
        if _cores(self.cpu) is None:
            raise ValueError("cpu: not an amount of CPUs, such as 1 or 500m")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who makes Pods of a template: the workload's name, the label that will say their revision, and the namespace
    where that is known."""

    name: str
    revision_label: str | None
    namespace: str | None


@dataclass(frozen=True, slots=True)
class Injected:
    """A Pod that starts from a bundle. `patch` is what makes it of the one that was given (RFC 6902); `image` is the
    reference of the image that it mounts, None where an init container fetches."""

    asked: Asked
    workload: Workload | None
    pod: Document
    patch: list[Document]
    image: str | None = None


def inject(
    pod: Document,
    delivery: Delivery,
    *,
    namespace: str | None = None,
    owner: Owner | None = None,
    unpacked_size: int | None = None,
    image: str | None = None,
) -> Injected | Left:
    """The Pod with its bundle, or why it is left as it is.

    `namespace` is the Pod's; `owner` is told for a template, whose Pods are not there as yet; `unpacked_size` are the
    bytes of its bundle, where they are known; `image` is the reference of the bundle's image, for a Pod that is to
    mount it and that `mounts_for` has a target for.
    """
    if _is_injected(pod["spec"]):
        return Left("already")
    try:
        found = asked(pod)
        whose = workload(pod, namespace) if namespace and owner is None else None
        after = _bare(pod, found)
        if image is None:
            _fetch(after, found, delivery, _identity(whose, owner), unpacked_size)
        else:
            _mount(after, found, image)
    except Doubt as doubt:
        return doubt.left
    spec = after["spec"]
    mine = f"/spec/containers/{found.container}"
    container = spec["containers"][found.container]
    values = {
        "/spec/volumes": spec["volumes"],
        **({"/spec/initContainers": spec["initContainers"]} if image is None else {}),
        f"{mine}/env": container["env"],
        f"{mine}/volumeMounts": container["volumeMounts"],
    }
    # `add` to a member that is there replaces it (RFC 6902, 4.1).
    patch = [{"op": "add", "path": path, "value": value} for path, value in values.items()]
    return Injected(found, whose, after, patch, image)


def mounts_for(found: Injected, platforms: Sequence[str]) -> tuple[str, str] | None:
    """Python and platform of the bundle that the Pod could mount with nothing else done for it; None where that is not
    certain. `platforms` are those of Kyma's images.

    An init container looks what the interpreter is; who mounts has to know. An inline Function in Kyma's own image
    tells (one in another image, or where Kyma's may be several machines', does not), as does an annotation. What an
    init container would leave in `/deps/requirements.txt` for a `pip install` after it, no image has: so an annotated
    Pod has to be one that falls back to nothing.
    """
    wanted = found.asked
    if found.workload is None or wanted.known is None:
        return None
    if not wanted.function:
        return wanted.target if not wanted.fallback else None
    image = found.pod["spec"]["containers"][wanted.container]["image"].rpartition("/")[2]
    named = _RUNTIME_IMAGE.fullmatch(image.partition("@")[0].partition(":")[0])
    if named is None or wanted.python != f"{named[1]}.{named[2]}" or len(platforms) != 1:
        return None
    return wanted.python, platforms[0]


def _is_injected(spec: Document) -> bool:
    return any(init["name"] == NAME for init in spec.get("initContainers") or ()) or any(
        volume["name"] == _VOLUME and "image" in volume for volume in spec.get("volumes") or ()
    )


def _bare(pod: Document, found: Asked) -> Document:
    """A copy of the Pod in which the bundle's place is free."""
    after = copy.deepcopy(pod)
    spec = after["spec"]
    container = spec["containers"][found.container]
    if any(each["name"] == NAME for each in spec["containers"]):
        raise Doubt("taken", f"a container is named {NAME} already")
    for mount in container.get("volumeMounts") or ():
        if mount["mountPath"].rstrip("/") == TARGET or mount["mountPath"].startswith(f"{TARGET}/"):
            raise Doubt("taken", f"something is mounted at {mount['mountPath']} already")
    return after


def _fetch(
    pod: Document, found: Asked, delivery: Delivery, identity: list[Document], unpacked_size: int | None
) -> None:
    spec = pod["spec"]
    container = spec["containers"][found.container]
    if found.target and not delivery.client_image:
        raise Doubt("no-client-image", "its image has no Python, and the operator named no client image")
    init = _init_container(spec, container, found, delivery, identity)
    _show(spec, container, _volumes(found, delivery, unpacked_size), _environment(container, found, f"-r {_OURS}"))
    spec["initContainers"] = [*(spec.get("initContainers") or ()), init]


def _mount(pod: Document, found: Asked, image: str) -> None:
    spec = pod["spec"]
    container = spec["containers"][found.container]
    # By its digest it is the same wherever it has been pulled before.
    volume: Document = {"name": _VOLUME, "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
    _show(spec, container, [volume], _environment(container, found, ""))


def _show(spec: Document, container: Document, volumes: list[Document], env: list[Document]) -> None:
    taken = {each["name"] for each in spec.get("volumes") or ()} & {each["name"] for each in volumes}
    if taken:
        raise Doubt("taken", f"a volume is named {min(taken)} already")
    spec["volumes"] = [*(spec.get("volumes") or ()), *volumes]
    container["env"] = env
    mount = {"name": _VOLUME, "mountPath": TARGET, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _volumes(found: Asked, delivery: Delivery, unpacked_size: int | None) -> list[Document]:
    place: Document = {}
    if unpacked_size is not None:
        # Old and new tree stand side by side for a moment.
        place["sizeLimit"] = f"{math.ceil((2 * unpacked_size + _HEADROOM) / _MIB)}Mi"
    volumes: list[Document] = [{"name": _VOLUME, "emptyDir": place}]
    if found.configmap:
        name, key = found.configmap
        items = [{"key": key, "path": "requirements.txt"}]
        volumes.append({"name": _TEXT_VOLUME, "configMap": {"name": name, "items": items, "optional": True}})
    if delivery.audience:
        token = {"audience": delivery.audience, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
        volumes.append({"name": _TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}})
    return volumes


def _init_container(
    spec: Document, container: Document, found: Asked, delivery: Delivery, identity: list[Document]
) -> Document:
    arguments = [delivery.client]
    env: list[Document] = [
        {"name": "LOCKSTEP_SERVER", "value": delivery.server},
        {"name": "LOCKSTEP_TARGET", "value": TARGET},
        {"name": "LOCKSTEP_ON_FAILURE", "value": "fallback" if found.fallback else "fail"},
        {"name": "LOCKSTEP_TIMEOUT", "value": str(_SECONDS)},
        *identity,
    ]
    mounts: list[Document] = [{"name": _VOLUME, "mountPath": TARGET}]
    if found.variable:
        env.append({**found.variable, "name": "LOCKSTEP_REQUIREMENTS"})
    if found.text is not None:
        # In a variable a dollar is written twice, lest it be taken for a reference.
        env.append({"name": "LOCKSTEP_REQUIREMENTS", "value": found.text.replace("$", "$$")})
    if found.configmap:
        arguments.append(f"--requirements={_TEXT}/requirements.txt")
        mounts.append({"name": _TEXT_VOLUME, "mountPath": _TEXT, "readOnly": True})
    if found.cloned:
        path, mount = found.cloned
        arguments += [f"--requirements={path}", "--move-aside"]
        mounts.append({"name": mount["name"], "mountPath": mount["mountPath"]})
    if found.pip_conf:
        volume, file = found.pip_conf
        arguments.append(f"--pip-conf={_PIP_CONF}/{file}")
        mounts.append({"name": volume, "mountPath": _PIP_CONF, "readOnly": True})
    if found.target:
        python, platform = found.target
        env += [{"name": "LOCKSTEP_PYTHON", "value": python}, {"name": "LOCKSTEP_PLATFORM", "value": platform}]
    if delivery.audience:
        env.append({"name": "LOCKSTEP_TOKEN_FILE", "value": f"{_TOKEN}/token"})
        mounts.append({"name": _TOKEN_VOLUME, "mountPath": _TOKEN, "readOnly": True})
    init: Document = {
        "name": NAME,
        "image": delivery.client_image if found.target else container["image"],
        "command": ["python3", "-I", "-c", delivery.bootstrap],
        "args": arguments,
        "env": env,
        "volumeMounts": mounts,
        "securityContext": _security(spec, container),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if not found.target and container.get("imagePullPolicy"):
        init["imagePullPolicy"] = container["imagePullPolicy"]
    if resources := _resources(container, delivery.cpu):
        init["resources"] = resources
    return init


def _identity(whose: Workload | None, owner: Owner | None) -> list[Document]:
    if owner is not None:
        pairs: list[Document] = [
            {"name": "LOCKSTEP_NAMESPACE", "value": owner.namespace}
            if owner.namespace
            else {"name": "LOCKSTEP_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "LOCKSTEP_WORKLOAD", "value": owner.name},
        ]
        if owner.revision_label:
            path = f"metadata.labels['{owner.revision_label}']"
            pairs.append({"name": "LOCKSTEP_REVISION", "valueFrom": {"fieldRef": {"fieldPath": path}}})
        return pairs
    if whose is None:
        return []
    named = [("NAMESPACE", whose.namespace), ("WORKLOAD", whose.name), ("REVISION", whose.revision)]
    return [{"name": f"LOCKSTEP_{name}", "value": value} for name, value in named if value]


def _security(spec: Document, container: Document) -> Document:
    """Pod Security Standards, "restricted", as the user that the function runs as; one that is root gets another."""
    of_pod, of_container = spec.get("securityContext") or {}, container.get("securityContext") or {}
    context: Document = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for name in ("runAsUser", "runAsGroup", "seLinuxOptions"):
        if name in of_container:
            context[name] = of_container[name]
    effective = {**of_pod, **of_container}
    # Whom an image runs as its manifest tells, which nobody here has seen.
    if effective.get("runAsUser") == 0 or ("runAsUser" not in effective and not effective.get("runAsNonRoot")):
        context |= {"runAsUser": _UID, "runAsGroup": _UID}
    return context


def _resources(container: Document, cpu: str) -> Document:
    """The function's; where its CPU may vary at all, up to a higher limit: at an equal request that costs nothing."""
    resources: Document = copy.deepcopy(container.get("resources") or {})
    resources.pop("claims", None)
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    granted, wanted, asked_for = (_cores(each) for each in (limits.get("cpu"), cpu, requests.get("cpu")))
    # An equal limit and request may make the Pod one of class Guaranteed, which it has to stay.
    if granted and wanted and asked_for and asked_for < granted < wanted:
        limits["cpu"] = cpu
    return resources


def cpu_limit(container: Document) -> float | None:
    """How many CPUs the container may use; None where it has no limit that says so."""
    limit = _cores(((container.get("resources") or {}).get("limits") or {}).get("cpu"))
    return float(limit) if limit else None


def _cores(quantity: Any) -> Decimal | None:
    """A CPU quantity in cores; None where it is none, or written in a way that nobody writes CPUs in."""
    match = _CPU.fullmatch(str(quantity))
    return Decimal(match[1]) / (1000 if match[2] else 1) if match else None


def _environment(container: Document, found: Asked, dependencies: str) -> list[Document]:
    """The container's variables, that of a Function's dependencies with this text; one that others refer to keeps its
    place."""
    env: list[Document] = list(container.get("env") or ())
    path = variable(container, "PYTHONPATH")
    if path is not None and "valueFrom" in path:
        raise Doubt("ambiguous", "its PYTHONPATH is not in its spec")
    inherited = (path or {}).get("value") or (_FUNCTIONS_OWN if found.function else "")
    ours = f"{TARGET}/site-packages"
    changes = {"PYTHONPATH": f"{ours}:{inherited}" if inherited else ours}
    # Where the spec has no PATH the image's own holds, which is not known here and must not be replaced.
    if (search := variable(container, "PATH")) and search.get("value"):
        changes["PATH"] = f"{TARGET}/bin:{search['value']}"
    if found.variable:
        changes[DEPENDENCIES] = dependencies
    for name, value in changes.items():
        changed: Document = {"name": name, "value": value}
        position = next((number for number, each in enumerate(env) if each["name"] == name), None)
        if position is None:
            env.append(changed)
        else:
            env[position] = changed
    return env
