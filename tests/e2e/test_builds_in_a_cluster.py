"""Packages without a wheel, where the service may not make a sandbox: built in a restricted Pod, one for each build.

All of it is real but for the API server, which is a stand-in that makes no more of a Job than a Pod that podman runs:
the service in its mount namespace with a service account, the client in its image, the builder in images of Debian's
Python, one without and one with a compiler.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.builds.jobs import RIGHTS
from resolver.client.build import archive
from tests.integration.conftest import publish
from tests.integration.test_builds import HERE, INTERPRETER, MUSL, NATIVE, THIS_CLASS, detail
from tests.support import containers
from tests.support.cluster import in_a_pod
from tests.support.index import PackageIndex
from tests.support.jobs_api import NAMESPACE, JobsApi, jobs_api
from tests.support.podman_node import PodmanNode
from tests.support.postgres import free_port
from tests.support.real_index import real_index as real_index
from tests.support.sdists import a_sdist
from tests.support.service import ROOT, Service
from tests.support.webhook import until

_CLIENT = f"localhost/lockstep-test/client-of-builds:{os.getpid()}"


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """Where builds run, by what their wheels are for."""
    containers.needs_containers()
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    base = containers.base_image()
    python = containers.run(base, "python3", "-c", ask).stdout.strip()
    if python != THIS_CLASS.python:
        pytest.skip(f"the base image has Python {python}, and not the service's {THIS_CLASS.python}")
    containers.image_of_client(archive(), _CLIENT)
    yield {"any": base, THIS_CLASS.name: containers.native_image()}
    containers.podman("rmi", "--force", _CLIENT)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanNode]:
    node = PodmanNode(tmp_path_factory.mktemp("node"))
    yield node
    node.close()


@pytest.fixture(scope="module")
def api(images: dict[str, str], node: PodmanNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsApi]:
    with jobs_api(tmp_path_factory.mktemp("account"), node) as api:
        yield api


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        publish(index, "podded-dep", "2.0")
        yield index


class Builders:
    """What there is to start them: an API server, images."""

    def __init__(self, api: JobsApi, images: dict[str, str]) -> None:
        self._within, self._address = in_a_pod(api.server)
        self._images = images

    def service(self, data: Path, index_url: str) -> Service:
        """One whose builders these are."""
        port = free_port()
        environment = {
            **self._address,
            "LOCKSTEP_BUILDS": "native",
            "LOCKSTEP_BUILDER_NAMESPACE": NAMESPACE,
            "LOCKSTEP_BUILDER_URL": f"http://127.0.0.1:{port}",
            "LOCKSTEP_BUILDER_CLIENT_IMAGE": _CLIENT,
            "LOCKSTEP_BUILDERS": " ".join(f"{place}={image}" for place, image in self._images.items()),
            "LOCKSTEP_SDIST_TIMEOUT": "60s",
            "LOCKSTEP_SDIST_MEMORY": str(1 << 30),
            "LOCKSTEP_REFUSALS_FOR": "0.2s",
        }
        flags = ["--port", str(port), *INTERPRETER]
        return Service(data, index_url=index_url, flags=flags, environment=environment, within=self._within)


@pytest.fixture(scope="module")
def builders(api: JobsApi, images: dict[str, str]) -> Builders:
    return Builders(api, images)


@pytest.fixture(scope="module")
def service(builders: Builders, index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with builders.service(tmp_path_factory.mktemp("service") / "data", index.url) as service:
        yield service


def settled(api: JobsApi, node: PodmanNode, before: int) -> None:
    """One Job more was made, and nothing of it is left."""
    until(lambda: not api.jobs)
    assert (api.jobs, api.secrets, len(api.deleted) - before) == ({}, {}, 1)
    assert node.left() == []


def test_a_pure_one(service: Service, index: PackageIndex, api: JobsApi, node: PodmanNode) -> None:
    index.add(*a_sdist("podded", build_requires=["podded-dep"], code="import podded_dep; print('built', NAME)"))
    before = len(api.deleted)
    answer = service.resolve("podded", target=MUSL)
    assert answer.status_code == 200, (answer.text, node.logs)
    (built,) = detail(service, answer.json())["packages"][0]["builds"]
    assert (built["target"], built["reproducible"], built["log"]) == ("any", True, "built podded")
    assert set(api.used) == set(RIGHTS)
    settled(api, node, before)
    # Another who asks gets the same wheel, and no Job.
    elsewhere = {"python": "3.13", "platform": "manylinux_2_28_aarch64"}
    assert service.resolve(["podded", "podded-dep"], target=elsewhere).status_code == 200
    assert len(api.deleted) == before + 1
    # Each builder has a token of its own, which nobody else sees.
    assert len(api.tokens) == len(set(api.tokens)) > 0
    assert not [token for token in api.tokens for log in (service.log(), *node.logs.values()) if token in log]


def test_a_native_one(service: Service, index: PackageIndex, api: JobsApi, node: PodmanNode, tmp_path: Path) -> None:
    tag = f"cp{THIS_CLASS.python.replace('.', '')}"
    name = f"{tag}-{tag}-linux_{platform.machine()}"
    index.add(*a_sdist("compiled", tag=name, code="compile_it('')", more=NATIVE))
    before = len(api.deleted)
    answer = service.resolve("compiled", target=HERE)
    assert answer.status_code == 200, (answer.text, node.logs)
    (built,) = detail(service, answer.json())["packages"][0]["builds"]
    assert (built["target"], built["reproducible"]) == (THIS_CLASS.name, True)
    settled(api, node, before)
    assert used(service, tmp_path, ["compiled"], "import compiled; print(compiled.answer())") == "42\n"


def used(service: Service, folder: Path, requirements: list[str], program: str) -> str:
    """What a program prints that has these packages from the service, and no others."""
    argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(folder / "deps")]
    argv += [word for requirement in requirements for word in ("--requirement", requirement)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "deps/site-packages")}
    done = subprocess.run([sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real_index
def test_real_ones(builders: Builders, api: JobsApi, node: PodmanNode, real_index: str, tmp_path: Path) -> None:
    """One for any platform, which setuptools makes, and one in C."""
    before = len(api.deleted)
    with builders.service(tmp_path / "data", real_index) as service:
        locked = service.resolve(["wsgi-request-logger==0.4.6", "crcmod==1.7"], target=HERE)
        assert locked.status_code == 200, (locked.text, node.logs)
        wheels = {package["name"]: package["wheel"] for package in locked.json()["lock"]["packages"]}
        program = "import requestlogger; from crcmod import _crcfunext"
        used(service, tmp_path, ["wsgi-request-logger==0.4.6", "crcmod==1.7"], program)
    assert wheels["wsgi-request-logger"].endswith("-py3-none-any.whl")
    assert wheels["crcmod"].endswith(f"-linux_{platform.machine()}.whl")
    assert len(api.deleted) - before == 2
    assert node.left() == []


def test_a_class_without_an_image_says_which_builder_is_missing(
    service: Service, index: PackageIndex, api: JobsApi
) -> None:
    index.add(*a_sdist("elsewhere", code="import os, subprocess; subprocess.run([os.environ['CC']], check=True)"))
    problem = service.resolve("elsewhere", target=MUSL).json()
    assert problem["type"].endswith(":build-required"), problem
    assert "no builder image for cp312-musllinux_1_2_x86_64: set `builders`" in problem["hints"][-1]
    assert not api.jobs


# What only the Pod, and not the builder in it, would keep from it is among these: there is a network, and no more.
HOSTILE = {
    "network": "import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
    "memory": "x = bytearray(3 << 30)",
    "disk": "[open(str(number), 'wb').write(bytes(1 << 26)) for number in range(64)]",
    "token": "print(open('/lockstep/token/token').read())",
    "service account": "print(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_one_ends_in_a_problem_and_leaves_nothing(
    service: Service, index: PackageIndex, api: JobsApi, node: PodmanNode, kind: str
) -> None:
    name = f"hostile-{kind.replace(' ', '-')}"
    index.add(*a_sdist(name, code=HOSTILE[kind].format(port=service.url.rpartition(":")[2])))
    before = len(api.deleted)
    problem = service.resolve(name, target=MUSL).json()
    assert problem.get("type", "").endswith(":build-failed"), problem
    assert name in problem["detail"]
    settled(api, node, before)
    assert service.resolve("podded-dep", target=MUSL).status_code == 200


def test_a_service_that_stops_takes_its_builders_along(
    builders: Builders, index: PackageIndex, api: JobsApi, node: PodmanNode, tmp_path: Path
) -> None:
    index.add(*a_sdist("sleeping", code="import time; time.sleep(600)"))
    before = len(api.deleted)
    service = builders.service(tmp_path / "data", index.url)
    with service:
        with service.client() as client:
            asked = {"requirements": "sleeping", "target": MUSL, "wait": 0}
            assert client.post("/v1/resolve", json=asked).status_code == 202
        until(lambda: api.secrets)
        assert service.stop() == 0
    settled(api, node, before)
    assert "left-behind" not in service.log()


def test_a_right_that_was_taken_away_is_named(service: Service, index: PackageIndex, api: JobsApi) -> None:
    index.add(*a_sdist("forbidden"))
    api.granted.discard(("batch", "jobs", "create"))
    try:
        answer = service.resolve("forbidden", target=MUSL)
    finally:
        api.granted.add(("batch", "jobs", "create"))
    assert 'cannot create resource "jobs"' in answer.json()["hints"][-1], answer.text
    until(lambda: service.resolve("forbidden", target=MUSL).status_code == 200)
