"""First of all: whatever becomes of Lockstep, an injected Pod starts its function. And with it, pip has nothing to do.

The Pods are those of a Function, inline and from git, as the webhook leaves them; podman runs them, on a stand-in for
the runtime's image. What only a kubelet does is left out: probes, a Secret that may be missing, a subPath.
"""

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.client.build import archive, bootstrap
from resolver.domain.injection import Delivery, Injected, inject
from tests.support import containers
from tests.support.broken_server import BrokenServer, Failing
from tests.support.containers import Play
from tests.support.functions import function
from tests.support.index import PackageIndex
from tests.support.postgres import free_port
from tests.support.real_index import real_index as real_index
from tests.support.service import Service
from tests.support.wheels import make_wheel

Document = dict[str, Any]

_PACKAGE = "injected-demo"
_MODULE = "injected_demo"
_REQUIREMENTS = f"{_PACKAGE}>=1\n"
_START = (
    "exec python3 -c 'import importlib.metadata as m, json, sys, injected_demo as d; "
    f'print(json.dumps([d.__file__, m.version("{_PACKAGE}"), sys.argv[1:]]))\' "$(cat requirements.txt)"'
)
# What can be imported from the bundle, by the name that a lock has for it.
_EVERYTHING = (
    "exec python3 -c 'import importlib.metadata as m, json, re, arrow, requests; "
    'found = {re.sub("[-_.]+", "-", each.metadata["Name"]).lower(): each.version '
    'for each in m.distributions(path=["/deps/site-packages"])}; '
    'print(json.dumps({"files": [arrow.__file__, requests.__file__], "versions": found}))\''
)
_numbers = itertools.count(1)

each_variant = pytest.mark.parametrize("git", [False, True], ids=["inline", "git"])


@pytest.fixture(scope="module")
def image() -> str:
    containers.needs_containers()
    return containers.base_image()


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        filename, content = make_wheel(_PACKAGE, "1.0")
        index.add(filename, content, metadata=False)  # Debian's pip stumbles over it
        yield index


@pytest.fixture(scope="module")
def service(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service") / "data", index_url=index.url) as service:
        yield service


class Functions:
    """Plays injected Functions whose pip uses this index."""

    def __init__(
        self, image: str, index_url: str, folder: Path, requirements: str = _REQUIREMENTS, start: str = _START
    ) -> None:
        self._image = image
        self._index_url = index_url
        self._folder = folder
        self._requirements = requirements
        self._start = start

    def play(self, server: str, *, git: bool = False, pip_conf: bool = False, seconds: int = 15) -> tuple[Play, str]:
        """The Pod that is made of a Function for a service at this URL, and its name."""
        text = bootstrap().replace("DOWNLOAD_SECONDS = 15", f"DOWNLOAD_SECONDS = {seconds}")
        delivery = Delivery(server, hashlib.sha256(archive()).hexdigest(), text)
        found = inject(self.before(git), delivery, namespace="shop")
        assert isinstance(found, Injected)
        return self.playing(found.pod, pip_conf=pip_conf)

    def playing(self, pod: Document, *, pip_conf: bool = False, token: Path | None = None) -> tuple[Play, str]:
        """A Pod that was made of `before`, and its name. `token` is the folder that its token is in."""
        name = f"lockstep-function-{os.getpid()}-{next(_numbers)}"
        pod = playable(pod, name, pip_conf, token)
        settings = {"pip.conf": f"[global]\nindex-url = {self._index_url}\nno-cache-dir = true\n"}
        given = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-{kind}"}, "data": settings}
            for kind in ("global", "package-registry-config")
        ]
        folder = self._folder / name
        folder.mkdir()
        return Play([*given, pod], folder), f"{name}-function"

    def run(self, server: str, **how: Any) -> tuple[str, str, str]:
        """Where its module came from (`deps`: the bundle, `local`: pip), what was left to pip, and the whole log."""
        play, container = self.play(server, **how)
        with play:
            return seen(play, container)

    def before(self, git: bool) -> Document:
        """The Function's Pod as its controller makes it."""
        pod = function(git=git, requirements=self._requirements)
        container = pod["spec"]["containers"][0]
        container |= {"image": self._image, "imagePullPolicy": "Never"}
        script = container["command"][2]
        container["command"][2] = f"{script.rpartition(chr(10))[0]}\n{self._start}".replace(
            "PIP_CONFIG_FILE", "NOT_HERE"
        )
        for init in pod["spec"]["initContainers"]:
            text = self._requirements
            clone = f"mkdir /git-repository/src && printf '{text}' > /git-repository/src/requirements.txt"
            init |= {"image": self._image, "imagePullPolicy": "Never", "command": ["sh", "-c", clone]}
        return pod


def seen(play: Play, container: str) -> tuple[str, str, str]:
    code, log = play.ended(container)
    assert code == 0, log
    file, version, left = json.loads([line for line in log.splitlines() if line.startswith('["/')][-1])
    assert version == "1.0"
    assert file in (f"/deps/site-packages/{_MODULE}/__init__.py", f"/kubeless/.local/{_MODULE}/__init__.py")
    return ("deps" if file.startswith("/deps/") else "local"), "\n".join(left), log


def playable(pod: Document, name: str, pip_conf: bool, token: Path | None = None) -> Document:
    """For podman: on this machine's network, volumes by names of their own, no part that only a kubelet plays. A
    kubelet asks the API server for a projected token; podman refuses such a volume, and gets the folder with one."""
    pod = copy.deepcopy(pod)
    metadata, spec = pod["metadata"], pod["spec"]
    metadata |= {"name": name}
    del metadata["generateName"], metadata["ownerReferences"]
    spec |= {"hostNetwork": True, "restartPolicy": "Never", "automountServiceAccountToken": False}
    (container,) = spec["containers"]
    for kubelets in ("ports", "startupProbe"):
        del container[kubelets]
    container["volumeMounts"] = [each for each in container["volumeMounts"] if "subPath" not in each]
    container["volumeMounts"].append({"name": "global", "mountPath": "/etc/xdg/pip", "readOnly": True})
    for volume in spec["volumes"]:
        if "secret" in volume:
            del volume["secret"]
            # An optional Secret that is not there is an empty folder.
            volume |= {"configMap": {"name": f"{name}-{volume['name']}"}} if pip_conf else {"emptyDir": {}}
        if token is not None and volume.pop("projected", None):
            volume |= {"hostPath": {"path": str(token), "type": "Directory"}}
    spec["volumes"].append({"name": "global", "configMap": {"name": f"{name}-global"}})
    named = {volume["name"]: f"{name}-{volume['name']}" for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        volume["name"] = named[volume["name"]]
    for each in (*spec["containers"], *spec["initContainers"]):
        for mount in each["volumeMounts"]:
            mount["name"] = named[mount["name"]]
    return pod


@pytest.fixture
def functions(image: str, index: PackageIndex, tmp_path: Path) -> Functions:
    return Functions(image, index.url, tmp_path)


@each_variant
def test_with_the_service_pip_is_left_with_nothing_to_do(functions: Functions, service: Service, git: bool) -> None:
    before = service.metrics()
    source, left, log = functions.run(service.url, git=git)
    assert source == "deps", log
    assert left == ("" if git else "-r /deps/requirements.txt")
    assert "Collecting" not in log
    assert service.metrics() != before
    with service.client() as client:
        pins = client.get("/v1/pins", params={"namespace": "shop"}).json()["items"]
    assert ("orders", "6d4cf56db6") in [(pin["workload"], pin["revision"]) for pin in pins]


@each_variant
def test_with_the_service_stopped_pip_installs_as_before(functions: Functions, git: bool) -> None:
    source, left, log = functions.run(f"http://127.0.0.1:{free_port()}", git=git, seconds=3)
    assert (source, "Collecting" in log) == ("local", True), log
    assert left == (_REQUIREMENTS.strip() if git else "-r /deps/requirements.txt")


@each_variant
@pytest.mark.parametrize(
    "how",
    [Failing(500, b"{}"), Failing(200, b"<html>not the client</html>"), Failing(200, silent=True)],
    ids=["failing", "another", "silent"],
)
def test_with_the_service_failing_pip_installs_as_before(functions: Functions, how: Failing, git: bool) -> None:
    with BrokenServer(how) as server:
        source, _, log = functions.run(server.url, git=git, seconds=3)
        assert server.requests
    assert (source, "Collecting" in log) == ("local", True), log


@each_variant
def test_what_the_service_cannot_lock_pip_installs_as_before(functions: Functions, tmp_path: Path, git: bool) -> None:
    """Its index does not have the package: no solution."""
    with PackageIndex() as empty, Service(tmp_path / "data", index_url=empty.url) as service:
        source, _, log = functions.run(service.url, git=git)
        assert 'outcome="no-solution"' in service.metrics()
    assert (source, "Collecting" in log) == ("local", True), log


def test_a_private_index_of_the_namespace_is_pips_alone(functions: Functions, service: Service) -> None:
    seen_before = service.log().count("/v1/resolve")
    source, _, log = functions.run(service.url, pip_conf=True)
    assert (source, "Collecting" in log) == ("local", True), log
    assert service.log().count("/v1/resolve") == seen_before


def test_a_function_that_is_started_again_needs_nobody(
    functions: Functions, index: PackageIndex, tmp_path: Path
) -> None:
    with Service(tmp_path / "data", index_url=index.url) as service:
        play, container = functions.play(service.url)
        with play:
            assert seen(play, container)[0] == "deps"
            service.stop()
            play.restart(container)
            assert seen(play, container)[0] == "deps"


@pytest.fixture(scope="module")
def real_service(real_index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("real") / "data", index_url=real_index) as service:
        yield service


@each_variant
@pytest.mark.real_index
def test_requests_and_arrow_are_importable_in_the_versions_that_are_locked(
    image: str, real_index: str, real_service: Service, tmp_path: Path, git: bool
) -> None:
    functions = Functions(image, real_index, tmp_path, "requests>=2\narrow\n", _EVERYTHING)
    play, container = functions.play(real_service.url, git=git)
    with play:
        code, log = play.ended(container, seconds=300)
    assert code == 0, log
    assert "Collecting" not in log
    (told,) = [json.loads(line) for line in log.splitlines() if line.startswith('{"files"')]
    with real_service.client() as client:
        (pin,) = client.get("/v1/pins", params={"namespace": "shop"}).json()["items"]
        lock = client.get(f"/v1/locks/{pin['lock']}").json()
    assert all(file.startswith("/deps/site-packages/") for file in told["files"])
    assert told["versions"] == {package["name"]: package["version"] for package in lock["packages"]}
    assert {"requests", "arrow"} < set(told["versions"])
