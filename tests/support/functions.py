"""Pods as the controller of Kyma Serverless makes them in buildless mode, and what an injection may not change."""

import copy
from typing import Any

Document = dict[str, Any]

IMAGE = "registry.example.com/serverless/function-runtime-python312:main"
SERVER = "http://lockstep.lockstep.svc:8080"
HANDLER = "def main(event, context):\n    return 'hello'\n"
REQUIREMENTS = "requests>=2\narrow\n"
# What one container does: sources into place, dependencies, server.
_INSTALL = "pip install --target=/kubeless/.local --no-cache-dir -r requirements.txt"
_START = "cd .. && exec python3 /kubeless.py"
_INLINE = (
    'echo "${FUNC_HANDLER_SOURCE}" > handler.py;\necho "${FUNC_HANDLER_DEPENDENCIES}" > requirements.txt;\n'
    f"PIP_CONFIG_FILE=package-registry-config/pip.conf {_INSTALL};\n{_START}"
)
_GIT = f"cp /git-repository/src/* .;\nPIP_CONFIG_FILE=package-registry-config/pip.conf {_INSTALL};\n{_START}"
# "restricted" of the Pod Security Standards.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
VOLUME_KINDS = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
    "image",
}


def function(*, git: bool = False, sidecar: bool = False, requirements: str = REQUIREMENTS) -> Document:
    """A Function's Pod, as the API server hands it to a webhook."""
    labels = "serverless.kyma-project.io"
    env = [{"name": "FUNC_NAME", "value": "orders"}, {"name": "FUNC_RUNTIME", "value": "python312"}]
    mounts = [
        {"name": "sources", "mountPath": "/kubeless"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "local", "mountPath": "/.local"},
        {
            "name": "package-registry-config",
            "mountPath": "/kubeless/package-registry-config/pip.conf",
            "subPath": "pip.conf",
        },
    ]
    volumes: list[Document] = [{"name": name, "emptyDir": {}} for name in ("sources", "tmp", "local")]
    registry = {"secretName": "serverless-package-registry-config", "optional": True}
    volumes.append({"name": "package-registry-config", "secret": registry})
    init: list[Document] = []
    if sidecar:
        init.append({**_container("istio-proxy"), "restartPolicy": "Always"})
    if git:
        clone = {"name": "git-repository", "mountPath": "/git-repository"}
        volumes.append({"name": "git-repository", "emptyDir": {}})
        mounts.append({**clone})
        url = {"name": "APP_REPOSITORY_URL", "value": "https://git.example.com/orders"}
        init.append({**_container("init"), "env": [url], "volumeMounts": [clone]})
    else:
        env += [
            {"name": "FUNC_HANDLER_SOURCE", "value": HANDLER},
            {"name": "FUNC_HANDLER_DEPENDENCIES", "value": requirements},
        ]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5, "failureThreshold": 30}
    container: Document = {
        **_container("function"),
        "image": IMAGE,
        "workingDir": "/kubeless",
        "command": ["sh", "-c", _GIT if git else _INLINE],
        "env": env,
        "volumeMounts": mounts,
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "startupProbe": probe,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "150m", "memory": "256Mi"}},
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-6d4cf56db6", "uid": "1", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "orders-6d4cf56db6-",
            "namespace": "shop",
            "labels": {
                f"{labels}/function-name": "orders",
                f"{labels}/managed-by": "function-controller",
                f"{labels}/resource": "deployment",
                f"{labels}/uuid": "0b6d7a2e-6c2f-4e3f-8a53-1c5f3ad3a1c8",
                "pod-template-hash": "6d4cf56db6",
            },
            "ownerReferences": [owner],
        },
        "spec": {
            "containers": [container],
            "initContainers": init,
            "volumes": volumes,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }


def plain(annotations: dict[str, str], **container: Any) -> Document:
    """A Pod of one container that takes part by its annotations."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "report", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "registry.example.com/app:1", **container}]},
    }


def _container(name: str) -> Document:
    return {"name": name, "image": f"registry.example.com/{name}:1", "securityContext": copy.deepcopy(RESTRICTED)}


def patched(document: Document, patch: list[Document]) -> Document:
    """The document with an RFC 6902 patch of additions to objects."""
    after = copy.deepcopy(document)
    for operation in patch:
        assert operation["op"] == "add"
        *path, last = operation["path"].lstrip("/").split("/")
        place: Any = after
        for name in path:
            place = place[int(name) if isinstance(place, list) else name]
        place[last] = operation["value"]
    return after


def assert_restricted(pod: Document) -> None:
    """The Pod Security Standard "restricted"."""
    spec = pod["spec"]
    of_pod = spec.get("securityContext", {})
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for volume in spec["volumes"]:
        assert {kind for kind in volume if kind != "name"} <= VOLUME_KINDS
    for container in [*spec["containers"], *spec["initContainers"]]:
        context = {**of_pod, **container["securityContext"]}
        assert RESTRICTED.items() <= context.items()
        assert context["runAsUser"] != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
