"""A node that runs the Pods of Jobs, for real: podman plays them, and their status is what it says of their containers.

What only a kubelet does is left out or stands in: the Pod is on this machine's network, its Secret comes as a ConfigMap
(podman mounts a Secret with its values in base64), its volumes have names of their own (podman keeps them by those),
and one in memory is a tmpfs of its size that is made here, for the group that has it.
"""

import base64
import copy
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import yaml

from tests.support.containers import log, podman

Document = dict[str, Any]

_MESSAGE = 2048  # bytes of a log that a kubelet takes for a termination message


class PodmanNode:
    """Node, whose manifests are in this folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._playing: dict[str, threading.Thread] = {}
        self._failed: dict[str, str] = {}
        self._removing: list[threading.Thread] = []
        self.logs: dict[str, str] = {}
        """What the builders of Pods that are gone had printed."""

    def start(self, job: Document, secret: Document) -> None:
        """See Node."""
        name = job["metadata"]["name"]
        playing = threading.Thread(target=self._play, args=(name, self._playable(job, secret)))
        self._playing[name] = playing
        playing.start()

    def status(self, name: str) -> Document | None:
        """See Node."""
        if name in self._failed:
            waiting = {"reason": "CreateContainerError", "message": self._failed[name]}
            return {"phase": "Pending", "containerStatuses": [{"name": "builder", "state": {"waiting": waiting}}]}
        if name not in self._playing:
            return None
        if self._playing[name].is_alive():
            return {"phase": "Pending"}
        (found,) = json.loads(podman("inspect", f"{name}-builder"))
        state = found["State"]
        if state["Status"] != "exited":
            return {"phase": "Running", "containerStatuses": [{"name": "builder", "state": {"running": {}}}]}
        code = state["ExitCode"]
        reason = "OOMKilled" if state["OOMKilled"] else "Error" if code else "Completed"
        terminated = {"exitCode": code, "reason": reason, "message": log(f"{name}-builder")[-_MESSAGE:] if code else ""}
        return {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "builder", "state": {"terminated": terminated}}],
        }

    def remove(self, name: str) -> None:
        """See Node. Done in a while; `close` waits for it."""
        removing = threading.Thread(target=self._remove, args=(name,))
        self._removing.append(removing)
        removing.start()

    def close(self) -> None:
        """Nothing of it is left."""
        for removing in self._removing:
            removing.join()
        for name in [*self._playing]:
            self._remove(name)

    def left(self) -> list[str]:
        """The Pods that are there once those that are being removed are gone."""
        for removing in self._removing:
            removing.join()
        return [name for name in self._playing if name in podman("pod", "ps", "--format", "{{.Name}}").split()]

    def _play(self, name: str, documents: list[Document]) -> None:
        manifest = self._folder / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump_all(documents))
        try:
            podman("kube", "play", str(manifest))
        except (AssertionError, subprocess.TimeoutExpired) as failure:
            self._failed[name] = str(failure)

    def _remove(self, name: str) -> None:
        playing = self._playing.pop(name, None)
        if playing is None:
            return
        playing.join()
        if name not in self._failed:
            self.logs[name] = log(f"{name}-builder")
        podman("pod", "rm", "--force", "--ignore", "--time=1", name)
        volumes = podman("volume", "ls", "--quiet", "--filter", f"name={name}").split()
        podman("volume", "rm", "--force", *volumes, "none")
        for mounted in self._folder.glob(f"{name}-*"):
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)
            mounted.rmdir()

    def _playable(self, job: Document, secret: Document) -> list[Document]:
        """The Job's Pod and its Secret, for `podman kube play`."""
        name = job["metadata"]["name"]
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(job["spec"]["template"])}
        pod["metadata"]["name"] = name
        # podman removes init containers that have ended, unless told otherwise.
        pod["metadata"]["annotations"] = {"io.podman.annotations.init.container.type": "always"}
        spec = pod["spec"]
        spec["hostNetwork"] = True
        for container in (*spec["initContainers"], *spec["containers"]):
            container["imagePullPolicy"] = "Never"
            for mount in container["volumeMounts"]:
                mount["name"] = f"{name}-{mount['name']}"
        for volume in spec["volumes"]:
            volume["name"] = f"{name}-{volume['name']}"
            if volume.pop("secret", None):
                volume["configMap"] = {"name": name}
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                size = volume.pop("emptyDir")["sizeLimit"].removesuffix("i")
                volume["hostPath"] = {"path": self._tmpfs(volume["name"], size, spec["securityContext"]["fsGroup"])}
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}, pod]

    def _tmpfs(self, name: str, size: str, group: int) -> str:
        place = self._folder / name
        place.mkdir()
        options = f"size={size},gid={group},mode=2770"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        return str(place)
