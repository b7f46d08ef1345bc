"""Replicas of one revision never differ: the table of the contract, through the service."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_wheel

AMD64 = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
ARM64 = {"python": "3.12", "platform": "manylinux_2_28_aarch64"}


def ask(service: Service, name: str, revision: str | None, target: dict[str, str] = AMD64) -> dict[str, Any]:
    """Resolve as a replica of the workload `name` does."""
    workload = {"namespace": "shop", "name": name} | ({"revision": revision} if revision else {})
    answered = service.resolve(name, workload=workload, target=target)
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


def version(answer: dict[str, Any]) -> str:
    """The version of the first package."""
    found: str = answer["lock"]["packages"][0]["version"]
    return found


def until_ready(service: Service) -> None:
    """Wait until the service has found out that the index answers again."""
    deadline = time.monotonic() + 60
    with service.client() as client:
        while client.get("/readyz").json()["status"] != "ready":
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_revision_keeps_its_lock_until_refreshed_and_beyond(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    first = ask(service, name, "r1")
    assert (first["outcome"], first["pin"]) == ("resolved", {"namespace": "shop", "workload": name, "revision": "r1"})
    publish(index, name, "2.0")

    assert ask(service, name, "r1")["outcome"] == "pinned"
    assert version(ask(service, name, "r2")) == "1.0", "a new revision follows the workload's newest pin"

    with service.client() as client:
        assert client.delete(f"/v1/pins/shop/{name}").json()["refreshes"] == 1
    assert version(ask(service, name, "r1")) == "1.0", "a scale-out, or a rollback: the revision is there"
    assert version(ask(service, name, "r3")) == "2.0"
    assert version(ask(service, name, "r2")) == "1.0"


def test_a_workload_without_revisions_has_one_a_refresh(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    assert version(ask(service, name, None)) == "1.0"
    publish(index, name, "2.0")
    assert version(ask(service, name, None)) == "1.0"
    with service.client() as client:
        client.delete(f"/v1/pins/shop/{name}")
    assert version(ask(service, name, None)) == "2.0"


def test_a_hold_keeps_new_revisions_on_a_lock_until_the_next_refresh(
    service: Service, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    old = ask(service, name, "r1")
    publish(index, name, "2.0")
    with service.client() as client:
        client.delete(f"/v1/pins/shop/{name}")
        assert version(ask(service, name, "r2")) == "2.0"
        held = client.put(f"/v1/pins/shop/{name}/hold", json={"lock": old["lock"]["digest"]})
        assert held.json()["held_lock"] == old["lock"]["digest"]
        assert version(ask(service, name, "r3")) == "1.0"
        client.delete(f"/v1/pins/shop/{name}")
    assert version(ask(service, name, "r4")) == "2.0"
    assert version(ask(service, name, "r3")) == "1.0"


def test_a_hold_needs_a_lock_that_is_there(service: Service, name: str) -> None:
    with service.client() as client:
        missing = client.put(f"/v1/pins/shop/{name}/hold", json={"lock": "sha256:" + "0" * 64})
        assert (missing.status_code, missing.json()["type"].rpartition(":")[2]) == (404, "not-found")


def test_another_machine_gets_the_versions_of_the_revision(service: Service, index: PackageIndex, name: str) -> None:
    for tag in ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64"):
        publish(index, name, "1.0", tag=f"py3-none-{tag}")
    amd64 = ask(service, name, "r1")
    for tag in ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64"):
        publish(index, name, "2.0", tag=f"py3-none-{tag}")

    arm64 = ask(service, name, "r1", ARM64)

    assert (version(amd64), version(arm64)) == ("1.0", "1.0")
    assert arm64["lock"]["packages"][0]["wheel"].endswith("aarch64.whl")
    assert ask(service, name, "r1", ARM64)["outcome"] == "pinned"
    assert ask(service, name, "r1")["lock"]["digest"] == amd64["lock"]["digest"]
    with service.client() as client:
        (pin,) = client.get("/v1/pins", params={"namespace": "shop", "limit": 1}).json()["items"]
    assert pin["extensions"] == {"cp312-manylinux_2_28_aarch64": arm64["lock"]["digest"]}


def test_a_machine_that_cannot_have_the_versions_is_refused_by_name(
    service: Service, index: PackageIndex, name: str
) -> None:
    for each, tags in {"1.0": ("x86_64", "aarch64"), "2.0": ("x86_64",)}.items():
        for machine in tags:
            publish(index, name, each, tag=f"py3-none-manylinux_2_17_{machine}")
    assert version(ask(service, name, "r1")) == "2.0"

    workload = {"namespace": "shop", "name": name, "revision": "r1"}
    refused = service.resolve(name, workload=workload, target=ARM64)

    assert refused.status_code == 422
    assert refused.json()["type"].endswith(":target-conflict")
    assert refused.json()["packages"] == [name]
    assert name in refused.json()["detail"]


def test_the_first_writer_wins_whatever_the_race(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: ask(service, name, f"r{number % 4}"), range(40)))
    assert {answer["lock"]["digest"] for answer in answers} == {answers[0]["lock"]["digest"]}
    with service.client() as client:
        pins = client.get("/v1/pins", params={"namespace": "shop", "limit": 500}).json()["items"]
    assert sorted(pin["revision"] for pin in pins if pin["workload"] == name) == ["r0", "r1", "r2", "r3"]


def test_changed_requirements_are_another_key(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    publish(index, f"{name}-more", "1.0")
    workload = {"namespace": "shop", "name": name, "revision": "r1"}
    one = service.resolve(name, workload=workload).json()
    two = service.resolve([name, f"{name}-more"], workload=workload).json()
    assert one["lock"]["digest"] != two["lock"]["digest"]
    assert service.resolve(name, workload=workload).json()["lock"] == one["lock"]


def test_a_lock_made_while_the_index_was_down_is_stale_and_spreads_no_further(
    index: PackageIndex, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stale")
    publish(index, name, "1.0")
    with Service(folder / "data", index_url=index.url, flags=["--fresh-for", "0s"]) as service:
        old = service.resolve(name).json()
        publish(index, name, "2.0")
        index.fault("/simple/", "500")
        try:
            stale = ask(service, name, "r1")
            with service.client() as client:
                assert client.get("/readyz").json() == {"status": "degraded", "degraded": ["index pypi"]}
        finally:
            index.clear_faults()
        assert (stale["outcome"], stale["lock"]) == ("stale", old["lock"])
        until_ready(service)
        assert version(ask(service, name, "r1")) == "1.0"
        assert version(ask(service, name, "r2")) == "2.0"
        assert version(ask(service, name, "r1")) == "1.0"


def test_platforms_are_locked_jointly(index: PackageIndex, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("joint")
    for each, machines in {"1.0": ("x86_64", "aarch64"), "2.0": ("x86_64",)}.items():
        for machine in machines:
            index.add(*make_wheel(name, each, tag=f"py3-none-manylinux_2_17_{machine}"))
    environment = {"LOCKSTEP_PLATFORMS": "manylinux_2_28_x86_64,manylinux_2_28_aarch64"}
    with Service(folder / "data", index_url=index.url, environment=environment) as service:
        amd64 = ask(service, name, "r1")
        arm64 = ask(service, name, "r1", ARM64)
        assert (version(amd64), version(arm64)) == ("1.0", "1.0")
        assert amd64["lock"]["digest"] == arm64["lock"]["digest"]
        assert arm64["outcome"] == "pinned"
