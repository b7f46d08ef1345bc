"""A store that is full: `storage-full`, nothing half done, and all is well once there is room again."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service

MEBIBYTE = 1 << 20
PAGE = 4096
ROOM = 8 * MEBIBYTE
PATIENCE = 60.0  # seconds


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder with a file system of its own, of 8 MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system to fill")
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as failure:
        pytest.skip(f"no file system to fill could be mounted: {getattr(failure, 'stderr', failure)}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as started:
        yield started


@pytest.fixture
def service(data: Path, index: PackageIndex) -> Iterator[Service]:
    with Service(data, index_url=index.url) as started:
        yield started


def leave(data: Path, room: int) -> None:
    """Fill the file system but for `room` bytes, a multiple of its pages."""
    ballast = data / "ballast"
    with ballast.open("ab", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)):
                pass
        except OSError:
            os.truncate(ballast, file.tell() // PAGE * PAGE - room)
    status = os.statvfs(data)
    assert status.f_bavail * status.f_frsize == room


def relieve(data: Path) -> None:
    (data / "ballast").unlink()


def assert_full(answer: httpx.Response) -> None:
    problem = answer.json()
    assert problem.get("type") == "urn:lockstep:problem:storage-full", problem
    assert answer.status_code == 507
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["retryable"] is True
    assert int(answer.headers["Retry-After"]) >= 1


def assert_nothing_half_done(service: Service) -> None:
    """Nor soon after: what was under way beside that which failed ends on its own."""
    blobs = service.data / "blobs" / "blobs-v1"
    deadline = time.monotonic() + PATIENCE
    while _under_way(service) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _under_way(service) == []
    assert all(len(file.name) == 64 for file in (blobs / "sha256").rglob("*") if file.is_file())


def _under_way(service: Service) -> list[Path]:
    scratch = (service.data / "scratch-v1").rglob("*")
    staging = (service.data / "blobs" / "blobs-v1" / "staging").iterdir()
    return [*staging, *(file for file in scratch if file.is_file() and file.name != ".in-use")]


def items(service: Service, path: str, **query: str) -> list[Any]:
    with service.client() as client:
        found: list[Any] = client.get(path, params=query).json()["items"]
        return found


def large(name: str, size: int) -> dict[str, object]:
    """Options of a wheel with so many bytes that do not compress."""
    return {"files": {f"{name}/__init__.py": "", f"{name}/data.bin": random.Random(name).randbytes(size)}}


@pytest.mark.parametrize(("what", "size"), [("wheel", 9 * MEBIBYTE), ("layer", 5 * MEBIBYTE)])
def test_what_does_not_fit(service: Service, index: PackageIndex, what: str, size: int) -> None:
    """The wheel itself; or the wheel does, but not the layer beside it."""
    workload = {"namespace": "full", "name": what, "revision": "1"}
    publish(index, "large", "1.0", **large("large", size))
    publish(index, "small", "1.0")

    assert_full(service.resolve("large", workload=workload))

    assert_nothing_half_done(service)
    assert items(service, "/v1/locks") == []
    assert items(service, "/v1/pins") == []
    assert service.resolve("small", workload=workload).json()["outcome"] == "resolved"


def test_every_amount_of_room_is_enough_or_said_not_to_be(service: Service, data: Path, index: PackageIndex) -> None:
    """From not one byte upwards: the engine's files and its cache, the wheel, the layer, the manifest, the database."""
    statuses = []
    for pages in (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 96):
        name = f"package{pages}"
        workload = {"namespace": "full", "name": name, "revision": "1"}
        publish(index, name, "1.0", requires=[f"{name}-dep"], **large(name, PAGE))
        publish(index, f"{name}-dep", "1.0")
        leave(data, pages * PAGE)

        answer = service.resolve(name, workload=workload)

        statuses.append(answer.status_code)
        if answer.status_code != 200:
            assert_full(answer)
        assert_nothing_half_done(service)
        relieve(data)
        pinned = [pin["workload"] for pin in items(service, "/v1/pins", namespace="full")]
        assert (name in pinned) == (answer.status_code == 200)
        again = service.resolve(name, workload=workload)
        assert again.status_code == 200, again.text
    assert statuses[0] == 507
    assert statuses[-1] == 200


def test_a_full_database_serves_what_is_there_and_takes_nothing_new(
    service: Service, data: Path, index: PackageIndex
) -> None:
    publish(index, "known", "1.0")
    first = service.resolve("known").json()
    workload = {"namespace": "full", "name": "known", "revision": "1"}
    leave(data, 0)

    assert service.resolve("known").json()["bundle"] == first["bundle"], "nothing to write"
    assert_full(service.resolve("known", workload=workload))
    with service.client() as client:
        assert_full(client.delete("/v1/pins/full/known"))
        assert client.get("/readyz").json() == {"status": "ready", "degraded": []}
        assert client.get(f"/v1/bundles/{first['bundle']['digest']}").status_code == 200
    assert service.stop() == 0
    service.start()
    assert service.resolve("known").json()["bundle"] == first["bundle"], "also from a start without room"
    assert items(service, "/v1/pins") == []

    relieve(data)

    assert service.resolve("known", workload=workload).json()["outcome"] == "cached"
    assert [pin["workload"] for pin in items(service, "/v1/pins")] == ["known"]
