"""Reading a Pod (core/v1): whose requirements it has, where they are, who it belongs to.

A Pod takes part by an annotation, `lockstep.dev/requirements` (the text) or `lockstep.dev/requirements-configmap`
(`NAME` or `NAME/KEY`), or as a Python Function of Kyma Serverless, whose requirements stand in a variable (inline) or
in a repository that an init container clones (git).
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from resolver.domain.errors import InvalidRequest
from resolver.domain.requests import Workload
from resolver.domain.requirements import parse_requirements

Document = dict[str, Any]

PREFIX = "lockstep.dev/"
REQUIREMENTS = PREFIX + "requirements"
CONFIGMAP = PREFIX + "requirements-configmap"
CONTAINER = PREFIX + "container"
PYTHON = PREFIX + "python"
PLATFORM = PREFIX + "platform"
ON_FAILURE = PREFIX + "on-failure"
MODE = PREFIX + "mode"
FUNCTION = "serverless.kyma-project.io/function-name"
DEPENDENCIES = "FUNC_HANDLER_DEPENDENCIES"

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_CLONE = "/git-repository"
_CLONED = f"{_CLONE}/src/requirements.txt"
_PIP_CONF = "pip.conf"
_INDEX_VARIABLES = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"}
_MOST_TEXT = 100_000  # bytes: a variable has to fit into a process's arguments (MAX_ARG_STRLEN, 128 KiB)
_REVISION_LABELS = ("pod-template-hash", "controller-revision-hash")
_SCHEDULED = re.compile(r"-\d{8,10}$")  # what a CronJob appends to its Jobs' names
_RUNTIME = re.compile(r"python(\d)(\d+)")


@dataclass(frozen=True, slots=True)
class Left:
    """A Pod that is left as it is. `code` is one of few words, for metrics; `message` says why to a person, empty where
    nobody asked for anything else."""

    code: str
    message: str = ""


class Doubt(Exception):
    """The Pod is not to be changed."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message)
        self.left = Left(code, message)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a Pod asks for.

    `container` is the position of the one that gets the packages. One of `variable` (the entry of its `env`), `text`,
    `configmap` (name, key) and `cloned` (a file's path, and the mount that it is seen through) has the requirements;
    `known` is their text where the Pod's spec has it. `pip_conf`: the volume and file of a configuration of pip that
    may or may not be there. `target`: Python and platform where the image has no Python of its own; `python`: that of
    the Function's runtime.
    """

    container: int
    variable: Document | None = None
    text: str | None = None
    configmap: tuple[str, str] | None = None
    cloned: tuple[str, Document] | None = None
    known: str | None = None
    pip_conf: tuple[str, str] | None = None
    target: tuple[str, str] | None = None
    python: str | None = None
    fallback: bool = True
    function: bool = False


def asked(pod: Document) -> Asked:
    """What the Pod asks for.

    Raises:
        Doubt: nothing, or something that must not or cannot be served.
    """
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    if annotations.get(MODE) == "off":
        raise Doubt("off")
    if (spec.get("os") or {}).get("name", "linux") != "linux":
        raise Doubt("not-linux", "it is not for Linux")
    if FUNCTION in labels:
        found = _function(spec)
    elif REQUIREMENTS in annotations or CONFIGMAP in annotations:
        found = _annotated(spec, annotations)
    else:
        raise Doubt("not-asked")
    if found.known is not None:
        _check(found.known)
    return found


def workload(pod: Document, namespace: str) -> Workload | None:
    """Who the Pod belongs to: the name of what made it, less what is a revision's. None where nothing tells."""
    metadata = pod.get("metadata") or {}
    labels = metadata.get("labels") or {}
    revision = next((labels[name] for name in _REVISION_LABELS if labels.get(name)), None)
    owner: Document = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), {})
    name = owner.get("name") or metadata.get("name")
    if not name:
        return None
    if owner.get("kind") == "ReplicaSet" and revision:
        name = name.removesuffix(f"-{revision}")
    if owner.get("kind") == "Job":
        name = _SCHEDULED.sub("", name)
    return Workload(namespace, name, revision)


def variable(container: Document, name: str) -> Document | None:
    """The entry of that name in the container's `env`. Raises Doubt where there are several."""
    found = [each for each in container.get("env") or () if each["name"] == name]
    if len(found) > 1:
        raise Doubt("ambiguous", f"{name} is set more than once")
    return found[0] if found else None


def _function(spec: Document) -> Asked:
    """A Function of Kyma Serverless in buildless mode; those for Node.js have the same labels and variables."""
    installs = [number for number, each in enumerate(spec["containers"]) if _runtime(each) or _runs_pip(each)]
    if not installs:
        raise Doubt("not-python")
    position = installs[0]
    container, python = spec["containers"][position], _runtime(spec["containers"][position])
    pip_conf = _pip_conf(container)
    entry = variable(container, DEPENDENCIES)
    if entry is not None and "valueFrom" not in entry:
        text = entry.get("value") or ""
        if not text.strip():
            raise Doubt("nothing-to-lock")
        if "$(" in text:
            raise Doubt("refused", "its requirements refer to other variables")
        return Asked(position, variable=entry, known=text, pip_conf=pip_conf, python=python, function=True)
    if entry is not None:
        return Asked(position, variable=entry, pip_conf=pip_conf, python=python, function=True)
    mount = next((each for each in container.get("volumeMounts") or () if each["mountPath"] == _CLONE), None)
    cloners = [
        each
        for init in spec.get("initContainers") or ()
        for each in init.get("volumeMounts") or ()
        if mount and each["name"] == mount["name"] and each["mountPath"] == _CLONE
    ]
    if mount is None or not cloners or mount.get("subPath") or mount.get("subPathExpr"):
        raise Doubt("nothing-to-lock")
    return Asked(position, cloned=(_CLONED, mount), pip_conf=pip_conf, python=python, function=True)


def _runtime(container: Document) -> str | None:
    """The Python of the Function's runtime, such as `3.12`."""
    version = _RUNTIME.fullmatch((variable(container, "FUNC_RUNTIME") or {}).get("value") or "")
    return f"{version[1]}.{version[2]}" if version else None


def _runs_pip(container: Document) -> bool:
    return any("pip install" in word for word in (*(container.get("command") or ()), *(container.get("args") or ())))


def _annotated(spec: Document, annotations: dict[str, str]) -> Asked:
    text, configmap = annotations.get(REQUIREMENTS), annotations.get(CONFIGMAP)
    if text is not None and configmap is not None:
        raise Doubt("ambiguous", f"{REQUIREMENTS} and {CONFIGMAP} are both there: one of them says what to lock")
    position = _named(spec["containers"], annotations)
    python, platform = annotations.get(PYTHON), annotations.get(PLATFORM)
    if (python is None) != (platform is None):
        raise Doubt("ambiguous", f"{PYTHON} and {PLATFORM} go together")
    on_failure = annotations.get(ON_FAILURE, "fallback")
    if on_failure not in ("fallback", "fail"):
        raise Doubt("ambiguous", f"{ON_FAILURE} is either fallback or fail")
    name, _, key = (configmap or "").partition("/")
    return Asked(
        position,
        text=text,
        configmap=(name, key or "requirements.txt") if configmap is not None else None,
        known=text,
        pip_conf=_pip_conf(spec["containers"][position]),
        target=(python, platform) if python and platform else None,
        fallback=on_failure == "fallback",
    )


def _named(containers: list[Document], annotations: dict[str, str]) -> int:
    names = [container["name"] for container in containers]
    wanted = annotations.get(CONTAINER) or annotations.get(_DEFAULT_CONTAINER) or names[0]
    if wanted not in names:
        raise Doubt("ambiguous", f"it has no container named {wanted[:64]!r}")
    return names.index(wanted)


def _pip_conf(container: Document) -> tuple[str, str] | None:
    """The volume and the file in it that may configure an index. Whether that is there the spec does not show."""
    if any(each["name"] in _INDEX_VARIABLES for each in container.get("env") or ()):
        raise Doubt("private-index", "its environment names an index of its own: pip installs as before")
    mounts = [
        (mount["name"], mount.get("subPath") or "")
        for mount in container.get("volumeMounts") or ()
        if _PIP_CONF in (PurePosixPath(mount["mountPath"]).name, PurePosixPath(mount.get("subPath") or "").name)
    ]
    if not mounts:
        return None
    if len(mounts) > 1 or not mounts[0][1]:
        raise Doubt("private-index", "it mounts a pip.conf in a way that is not known: pip installs as before")
    return mounts[0]


def _check(text: str) -> None:
    if len(text.encode(errors="surrogatepass")) > _MOST_TEXT:
        raise Doubt("refused", f"its requirements are over {_MOST_TEXT} bytes")
    try:
        parse_requirements(text)
    except InvalidRequest as error:
        raise Doubt("refused", str(error)) from None
