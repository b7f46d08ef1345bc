"""A Function that mounts its bundle from a registry, as the webhook leaves it, run by a podman that mounts images."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.test_injected_pods import playable
from tests.integration.conftest import publish
from tests.integration.test_publish import lockstep
from tests.support import containers
from tests.support.functions import assert_restricted, function, patched
from tests.support.index import PackageIndex
from tests.support.podman5 import Podman5
from tests.support.registries import Registry, registry
from tests.support.webhook import Webhook, patch_of, serving, until

Document = dict[str, Any]

_REQUIREMENTS = "mounted-demo>=1\n"
_IMAGE = "localhost/lockstep-test/function-runtime-python311:1"
_TARGET = {"python": "3.11", "platform": "manylinux_2_36_x86_64"}  # what the base image is
_NAME = "mounted"
_START = (
    "exec python3 -c 'import importlib.metadata as m, json, os, mounted_demo as d; "
    'print(json.dumps([d.__file__, m.version("mounted-demo"), os.path.exists(d.__cached__)]))\''
)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman5]:
    containers.needs_containers()
    with Podman5(tmp_path) as podman:
        podman("tag", containers.BASE, _IMAGE)
        yield podman


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(folder) as started:
        yield started


@pytest.fixture
def webhook(target: Registry, tmp_path: Path) -> Iterator[Webhook]:
    settings = {"webhook_image_registry": f"http://{target.host}/nodes", "webhook_platforms": _TARGET["platform"]}
    folder = tmp_path / "webhook"
    folder.mkdir()
    with PackageIndex() as index:
        publish(index, "mounted-demo", "1.0")
        with serving(folder, index, **settings) as webhook:
            yield webhook


def _function() -> Document:
    pod = function(requirements=_REQUIREMENTS)
    container = pod["spec"]["containers"][0]
    container |= {"image": _IMAGE, "imagePullPolicy": "Never"}
    (runtime,) = [each for each in container["env"] if each["name"] == "FUNC_RUNTIME"]
    runtime["value"] = "python311"
    script = container["command"][2].replace("PIP_CONFIG_FILE", "NOT_HERE")
    container["command"][2] = f"{script.rpartition(chr(10))[0]}\n{_START}"
    return pod


def _seen(podman: Podman5) -> str:
    assert podman("wait", f"{_NAME}-function").strip() == "0", podman("logs", f"{_NAME}-function")
    log = podman("logs", f"{_NAME}-function")
    file, version, compiled = json.loads([line for line in log.splitlines() if line.startswith('["/')][-1])
    assert (file, version, compiled) == ("/deps/site-packages/mounted_demo/__init__.py", "1.0", True)
    return log


def test_a_function_starts_from_an_image_and_again_with_nobody_there(
    podman: Podman5, webhook: Webhook, target: Registry, tmp_path: Path
) -> None:
    before = _function()
    fetching = patched(before, patch_of(webhook.review(before)))
    assert [each["name"] for each in fetching["spec"]["initContainers"]] == ["lockstep"]
    whose = {"namespace": "shop", "name": "orders", "revision": "6d4cf56db6"}
    assert webhook.service.resolve(_REQUIREMENTS, target=_TARGET, workload=whose).status_code == 200
    done = lockstep(webhook.service, "shop/orders", f"{target.host}/nodes/shop/orders")
    assert done.returncode == 0, done.stderr

    second = copy.deepcopy(before)  # the next rollout
    second["metadata"]["labels"]["pod-template-hash"] = "58d7c4"
    second["metadata"]["ownerReferences"][0]["name"] = "orders-58d7c4"
    reviewed: list[Document] = []

    def mounts() -> bool:  # on a busy machine a review may have no time to look
        reviewed.append(patched(second, patch_of(webhook.review(second))))
        return not reviewed[-1]["spec"]["initContainers"]

    until(mounts)
    after = reviewed[-1]
    assert_restricted(after)
    pod = playable(after, _NAME, pip_conf=False)
    assert [each["image"]["reference"] for each in pod["spec"]["volumes"] if "image" in each]
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{_NAME}-global"}, "data": {}}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump_all([settings, pod]))

    podman("kube", "play", "--tls-verify=false", "/share/pod.yaml")
    assert "Collecting" not in _seen(podman)
    webhook.service.stop()
    target.stop()
    podman("start", f"{_NAME}-function")
    assert "Collecting" not in _seen(podman)
