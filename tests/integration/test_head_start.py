"""Wheels come in and layers are built before it is known whether there will be a lock of them."""

import time
from pathlib import Path

from tests.integration.conftest import blobs, publish, scratch
from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_sdist

PATIENCE = 60.0  # seconds


def stored(service: Service) -> list[str]:
    """The blobs that are whole, once no work is under way: what was begun early goes on after the answer."""
    deadline = time.monotonic() + PATIENCE
    while (seen := blobs(service)) != blobs(service) or scratch(service) or any("/staging/" in each for each in seen):
        assert time.monotonic() < deadline, "something is left half done"
        time.sleep(0.2)
    names = [Path(path).name for path in seen]
    assert all(len(name) == 64 for name in names)
    return names


def test_a_refusal_found_after_wheels_began_leaves_nothing_half_done(
    service: Service, index: PackageIndex, name: str
) -> None:
    wheels = [publish(index, name, "1.0", requires=[f"{name}-dep"]), publish(index, f"{name}-dep", "1.0")]
    index.add(*make_sdist(name, "2.0"))
    workload = {"namespace": "ahead", "name": name, "revision": "1"}

    refused = service.resolve(name, workload=workload)

    assert refused.json()["type"] == "urn:lockstep:problem:build-required"
    stored(service)
    with service.client() as client:
        assert client.get("/v1/locks", params={"package": name}).json()["items"] == []
        assert client.get("/v1/pins", params={"namespace": "ahead"}).json()["items"] == []
    # What had been begun is good for who asks in a way that can be answered: it is fetched once, whoever asked first.
    answer = service.resolve(f"{name}==1.0", workload=workload).json()
    assert [package["version"] for package in answer["lock"]["packages"]] == ["1.0", "1.0"]
    assert [index.count(f"/files/{wheel}") - index.count(f"/files/{wheel}.metadata") for wheel in wheels] == [1, 1]
    with service.client() as client:
        for layer in client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()["layers"]:
            assert len(client.get(f"/v1/blobs/{layer['digest']}").content) == layer["size"]


def test_a_wheel_that_is_not_what_it_should_be_fails_the_request_and_leaves_nothing(
    service: Service, index: PackageIndex, name: str
) -> None:
    wheel = publish(index, name, "1.0")
    before = sorted(stored(service))
    index.fault(f"/files/{wheel}$", "garbage")
    try:
        failed = service.resolve(name)
    finally:
        index.clear_faults()
    assert failed.json()["type"] == "urn:lockstep:problem:digest-mismatch"
    assert sorted(stored(service)) == before
    assert service.resolve(name).json()["outcome"] == "resolved"


def test_what_is_begun_early_is_fetched_and_built_once(service: Service, index: PackageIndex, name: str) -> None:
    names = [name, *(f"{name}-dep{number}" for number in range(20))]
    wheels = [publish(index, name, "1.0", requires=names[1:]), *(publish(index, each, "1.0") for each in names[1:])]
    built = _layers_built(service)

    answer = service.resolve(name).json()

    assert len(answer["lock"]["packages"]) == len(wheels)
    assert {index.count(f"/files/{wheel}") - index.count(f"/files/{wheel}.metadata") for wheel in wheels} == {1}
    assert _layers_built(service) - built == len(wheels)


def _layers_built(service: Service) -> int:
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next(
        (round(float(line.split()[1])) for line in lines if line.startswith("lockstep_layer_build_seconds_count")), 0
    )
