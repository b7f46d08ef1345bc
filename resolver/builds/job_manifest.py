"""The Job of one build, as Kubernetes is asked for it: one Pod, which has the client, its token, and nothing else.

    /lockstep/client    lockstep.pyz, put there by an init container of the client's image
    /lockstep/token     the token that is good for this one task
    /build              all that is written: what the service hands over, the build's own folder, what it answers. At
                        one path for each build, so that wheels come out equal. In memory: there a volume is full when
                        it is full; one on a disk is looked at now and then, and may have filled the node before its
                        Pod is evicted
    all else            the builder image as it is, read-only

The Pod is "restricted" (Pod Security Standards), reserves all that it may use, so that no build takes from its
neighbours, and runs as a user of its own, whose processes the kernel counts apart from those of other builds.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass

from resolver.domain.builds import ANY
from resolver.domain.targets import TargetEnvironment
from resolver.kubernetes import Document

COMPONENT = {"app.kubernetes.io/name": "lockstep", "app.kubernetes.io/component": "builder"}
"""The labels of builders' Pods: those that the service's NetworkPolicy lets in."""
REPLICA = "lockstep.dev/replica"

_CLIENT = "/lockstep/client"
_TOKEN = "/lockstep/token"  # noqa: S105 - a path
_IN_IMAGE = "/usr/local/lib/lockstep/lockstep.pyz"
_COPY = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_KEPT_SECONDS = 300  # of a Job whose service died: those of one that lives are deleted
_OWN = 64 << 20  # the builder itself, and what it prints
_HANDED = 512 << 20  # what is handed over and back stands beside what the build writes
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BuilderPods:
    """How builders run: the operator's part.

    `images` are by target class, or ANY; `url` is where they reach this process; `client_image` has the client; `cpu`
    is an amount of CPUs as Kubernetes writes it, `memory` and `disk` are bytes: what a build's processes may have in
    memory, and write. `machine` is that of this process, which ANY is built on.
    """

    namespace: str
    images: Mapping[str, str]
    url: str
    client_image: str
    cpu: str
    memory: int
    disk: int
    machine: str


def job(pods: BuilderPods, place: str, name: str, seconds: float, *, user: int, replica: str) -> Document:
    """The Job of a builder for this target class, or ANY, as this user; it has so many seconds."""
    labels = {**COMPONENT, REPLICA: replica}
    machine = pods.machine if place == ANY else TargetEnvironment.from_name(place).machine
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": pods.namespace, "labels": labels},
        "spec": {
            "activeDeadlineSeconds": math.ceil(seconds),
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,  # it has nothing to tidy up
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "hostname": "build",  # a name that changes might end up in the wheel
                    "nodeSelector": {
                        "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": _ARCHITECTURES.get(machine, machine),
                    },
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": user,
                        "runAsGroup": user,
                        "fsGroup": user,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "initContainers": [_client(pods)],
                    "containers": [_builder(pods, place)],
                    "volumes": [
                        {"name": "client", "emptyDir": {"sizeLimit": "64Mi"}},
                        {"name": "token", "secret": {"secretName": name, "defaultMode": 0o440}},
                        {"name": "build", "emptyDir": {"medium": "Memory", "sizeLimit": _mib(pods.disk + _HANDED)}},
                    ],
                },
            },
        },
    }


def secret(pods: BuilderPods, name: str, job_uid: str, token: str) -> Document:
    """What the Pod of the Job shows; it goes when the Job goes."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": pods.namespace,
            "labels": COMPONENT,
            "ownerReferences": [owner],
        },
        "immutable": True,
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }


def _client(pods: BuilderPods) -> Document:
    return {
        "name": "client",
        "image": pods.client_image,
        "command": ["python3", "-I", "-c", _COPY, _IN_IMAGE, f"{_CLIENT}/lockstep.pyz"],
        "securityContext": _security(),
        "resources": _resources("100m", _OWN, _OWN),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "client", "mountPath": _CLIENT}],
    }


def _builder(pods: BuilderPods, place: str) -> Document:
    command = ["python3", "-I", f"{_CLIENT}/lockstep.pyz", "builder", "--once"]
    return {
        "name": "builder",
        "image": pods.images[place],
        "command": [*command, "--server", pods.url, "--token-file", f"{_TOKEN}/token"],
        "workingDir": "/build",
        "securityContext": _security(),
        # A volume in memory is the container's memory as well.
        "resources": _resources(pods.cpu, pods.memory + pods.disk + _HANDED + _OWN, 2 * _OWN),
        # The end of its log says more than an exit code, and needs no right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "client", "mountPath": _CLIENT, "readOnly": True},
            {"name": "token", "mountPath": _TOKEN, "readOnly": True},
            {"name": "build", "mountPath": "/build"},
        ],
    }


def _security() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _resources(cpu: str, memory: int, disk: int) -> Document:
    amount = {"cpu": cpu, "memory": _mib(memory), "ephemeral-storage": _mib(disk)}
    return {"requests": amount, "limits": dict(amount)}


def _mib(size: int) -> str:
    return f"{math.ceil(size / _MIB)}Mi"
