"""Pods that mount what was published: known by digest, pinned, and in the registry; else they fetch."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import publish
from tests.integration.test_publish import lockstep
from tests.support.functions import function, patched
from tests.support.index import PackageIndex
from tests.support.registries import Registry, registry
from tests.support.registry_proxy import RegistryProxy
from tests.support.webhook import OBSERVE, Webhook, patch_of, serving, until

Document = dict[str, Any]

MUSL = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
_workloads = itertools.count(1)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(target: Registry) -> Iterator[RegistryProxy]:
    with RegistryProxy(target.host) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def webhook(index: PackageIndex, proxy: RegistryProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    place = f"http://{proxy.host}/nodes"
    with serving(tmp_path_factory.mktemp("webhook"), index, webhook_image_registry=place) as webhook:
        yield webhook


class Rollout:
    """A Function, revision by revision."""

    def __init__(self, webhook: Webhook, target: Registry, requirements: str) -> None:
        self.webhook = webhook
        self.requirements = requirements
        self.workload = f"mounted-{next(_workloads)}"
        self.repository = f"shop/{self.workload}"
        self._target = target

    def pod(self, revision: str) -> Document:
        pod = copy.deepcopy(function(requirements=self.requirements))
        pod["metadata"]["labels"]["pod-template-hash"] = revision
        pod["metadata"]["ownerReferences"][0]["name"] = f"{self.workload}-{revision}"
        return pod

    def volume(self, revision: str, path: str | None = None, **changes: Any) -> Document:
        """Where a new Pod of that revision has its packages from."""
        pod = self.pod(revision)
        response = self.webhook.review(pod, **({"path": path} if path else {}), **changes)
        after = patched(pod, patch_of(response))
        (volume,) = [each for each in after["spec"]["volumes"] if each["name"] == "lockstep-deps"]
        names = [init["name"] for init in after["spec"]["initContainers"]]
        assert names == ([] if "image" in volume else ["lockstep"])
        assert isinstance(volume, dict)
        return volume

    def mounted(self, revision: str, **changes: Any) -> Document:
        """As `volume`, once there was time to look: on a busy machine a review may have none, and has the Pod fetch."""
        volumes: list[Document] = []

        def mounts() -> bool:
            volumes.append(self.volume(revision, **changes))
            return "image" in volumes[-1]

        until(mounts)
        return volumes[-1]

    def fetch(self, revision: str) -> Document:
        """What the init container of a Pod of that revision is answered."""
        whose = {"namespace": "shop", "name": self.workload, "revision": revision}
        answer = self.webhook.service.resolve(self.requirements, target=MUSL, workload=whose)
        assert answer.status_code == 200, answer.text
        found: Document = answer.json()
        return found

    def publish(self) -> None:
        done = lockstep(self.webhook.service, self.repository, f"{self._target.host}/nodes/{self.repository}")
        assert done.returncode == 0, done.stderr

    def revisions(self) -> set[str]:
        with self.webhook.service.client() as client:
            pins = client.get("/v1/pins", params={"namespace": "shop"}).json()["items"]
        return {pin["revision"] for pin in pins if pin["workload"] == self.workload}


@pytest.fixture
def rollout(
    webhook: Webhook, target: Registry, proxy: RegistryProxy, index: PackageIndex, name: str
) -> Iterator[Rollout]:
    publish(index, name, "1.0")
    yield Rollout(webhook, target, f"{name}\n")
    proxy.fault = lambda method, path: None


def test_what_is_published_is_mounted_by_every_revision_that_takes_it(rollout: Rollout, proxy: RegistryProxy) -> None:
    assert "emptyDir" in rollout.volume("one")  # nobody has run it as yet
    first = rollout.fetch("one")
    rollout.publish()
    reference = f"{proxy.host}/nodes/{rollout.repository}@{first['bundle']['digest']}"
    expected = {"name": "lockstep-deps", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
    assert rollout.mounted("one") == expected
    assert rollout.mounted("two") == expected
    # It was pinned before its first Pod runs: one that fetches, for whatever reason, gets the same.
    assert rollout.revisions() == {"one", "two"}
    second = rollout.fetch("two")
    assert (second["outcome"], second["bundle"]["digest"]) == ("pinned", first["bundle"]["digest"])
    assert rollout.webhook.metric("mutate", "mounted") >= 2


def test_what_is_not_published_is_fetched_and_the_registry_asked_seldom(rollout: Rollout, proxy: RegistryProxy) -> None:
    rollout.fetch("one")
    for _ in range(5):
        assert "emptyDir" in rollout.volume("one")
    assert proxy.count("HEAD", f"/nodes/{rollout.repository}/manifests/") == 1


@pytest.mark.parametrize("status", [500, 0, 403])
def test_a_registry_in_doubt_has_pods_fetch(rollout: Rollout, proxy: RegistryProxy, status: int) -> None:
    rollout.fetch("one")
    rollout.publish()
    proxy.fault = lambda method, path: status
    assert "emptyDir" in rollout.volume("one")
    if status != 500:
        return
    proxy.fault = lambda method, path: None
    rollout.mounted("one")  # an absence is remembered for a short while


def test_a_dry_run_and_to_observe_pin_nothing(rollout: Rollout) -> None:
    rollout.fetch("one")
    rollout.publish()
    rollout.mounted("two", dryRun=True)

    def observed_to_mount() -> bool:
        rollout.webhook.review(rollout.pod("two"), OBSERVE)
        return bool(rollout.webhook.events("admission")[-1]["decision"] == "mounted")

    until(observed_to_mount)
    assert rollout.revisions() == {"one"}


def test_after_a_refresh_the_next_revision_fetches_what_is_new(rollout: Rollout) -> None:
    rollout.fetch("one")
    rollout.publish()
    with rollout.webhook.service.client() as client:
        assert client.delete(f"/v1/pins/{rollout.repository}").status_code == 200
    assert "emptyDir" in rollout.volume("two")
    rollout.mounted("one")  # it runs what it ran


def test_other_requirements_are_another_set(rollout: Rollout) -> None:
    rollout.fetch("one")
    rollout.publish()
    rollout.requirements += "# the same\n"
    rollout.mounted("one")
    rollout.requirements = rollout.requirements.replace("\n", ">=1\n", 1)
    assert "emptyDir" in rollout.volume("one")


@pytest.mark.parametrize("place", ["https://registry.example.com/nodes", "nowhere", "registry.example.com/UPPER"])
def test_a_registry_that_is_none_is_said_at_the_start(index: PackageIndex, place: str, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with 64.*webhook_image_registry"),
        serving(tmp_path, index, webhook_image_registry=place),
    ):
        pass
