"""The images: built from the Dockerfile on a local base, run as a restricted Pod would run them."""

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.tools import of_kind, pods, rendered
from tests.support import containers
from tests.support.cluster import cluster
from tests.support.containers import Container, Play, playable, trusting
from tests.support.postgres import free_port
from tests.support.real_index import real_index as real_index
from tests.support.webhook import until

# What builds the images installs their locks from it.
pytestmark = [pytest.mark.real_index, pytest.mark.usefixtures("real_index")]

_UID = 10001
_DATA = "/var/lib/lockstep"
# With compiled code, and without.
_REQUIREMENTS = "pydantic\nredis\n"
_IMPORTS = ("pydantic", "pydantic_core", "redis")
# What no image that runs in production has a use for.
_BUILD_TOOLS = ("gcc", "cc", "make", "ld", "git", "hatchling")


@pytest.fixture(scope="module")
def service_image() -> str:
    containers.needs_containers()
    return containers.build("service", "localhost/lockstep-test/service:under-test")


@pytest.fixture(scope="module")
def client_image() -> str:
    containers.needs_containers()
    return containers.build("client", "localhost/lockstep-test/client:under-test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's volume: what a claim with fsGroup is, a folder that its user may write."""
    return _folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def service(service_image: str, data: Path) -> Iterator[tuple[Container, str]]:
    """The service, and where it is."""
    flags = [f"--volume={data}:{_DATA}", f"--env=LOCKSTEP_LISTEN=127.0.0.1:{free_port()}", *trusting()]
    with Container(service_image, "serve", "--log-format=json", flags=flags) as running:
        yield running, running.wait_until_listening()


def _folder(path: Path) -> Path:
    os.chown(path, _UID, _UID)
    return path


@pytest.mark.parametrize("image", ["service_image", "client_image"])
def test_what_an_image_says_of_itself(image: str, request: pytest.FixtureRequest) -> None:
    found = containers.inspect(request.getfixturevalue(image))
    assert found["Config"]["User"] == f"{_UID}:{_UID}"
    labels = found["Labels"]
    assert labels["org.opencontainers.image.revision"] == "under-test"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]
    # Nothing of how this machine reaches its indexes stays behind.
    assert not [each for each in found["Config"]["Env"] if re.search(r"(?i)token|password|secret|index_url|://", each)]


def test_the_service_is_restricted(service: tuple[Container, str]) -> None:
    container, _ = service
    status = container.execute("cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(_UID)] * 4
    assert facts["Gid"].split() == [str(_UID)] * 4
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
    assert facts["NoNewPrivs"] == "1"
    mounts = [line.split() for line in container.execute("cat", "/proc/mounts").splitlines()]
    (root,) = [each for each in mounts if each[1] == "/"]
    assert "ro" in root[3].split(",")


def test_the_service_is_healthy(service: tuple[Container, str]) -> None:
    assert service[0].healthy()


def test_what_the_service_image_has(service_image: str) -> None:
    """Interpreters for byte-code, as many as were given; uv, pip and bubblewrap; nothing that builds."""
    pythons = [f"python{version}" for version in containers.interpreter_images()]
    script = "import shutil, sys; print(*(name for name in sys.argv[1:] if shutil.which(name)))"
    names = [*pythons, "uv", "pip", "bwrap", *_BUILD_TOOLS]
    done = containers.run(service_image, "-c", script, *names, flags=["--entrypoint=python"])
    assert done.stdout.split() == [*pythons, "uv", "pip", "bwrap"], done.stderr
    for python in pythons:
        said = containers.run(
            service_image, "-I", "-c", "import compileall, sys; print('%d.%d' % sys.version_info[:2])",
            flags=[f"--entrypoint={python}"],
        )  # fmt: skip
        assert f"python{said.stdout.strip()}" == python, said.stderr
    leftovers = "import os; print(*os.listdir('/var/lib/apt/lists'), *os.listdir('/opt'))"
    done = containers.run(service_image, "-c", leftovers, flags=["--entrypoint=python"])
    assert sorted(done.stdout.split()) == ["lockstep", "python"]


def test_two_replicas_of_one_workload(service: tuple[Container, str], client_image: str, tmp_path: Path) -> None:
    """What `make demo` shows, with the images, for a smaller set."""
    _, url = service
    seen = []
    for replica in (1, 2):
        folder = tmp_path / f"replica-{replica}"
        folder.mkdir()
        flags = [f"--volume={_folder(folder)}:/deps", f"--env=LOCKSTEP_REQUIREMENTS={_REQUIREMENTS}"]
        argv = ["fetch", "--server", url, "--target", "/deps", "--namespace", "shop"]
        argv += ["--workload", "checkout", "--revision", "6d4cf56db6"]
        done = containers.run(client_image, *argv, flags=flags, network="host", seconds=600)
        assert done.returncode == 0, done.stderr
        # The function: its own image, another user, no network, the packages read-only.
        program = (
            "import importlib, importlib.metadata as m, json, sys\n"
            "found = {}\n"
            "for name in sys.argv[1:]:\n"
            "    module = importlib.import_module(name)\n"
            "    assert '/deps/' in module.__file__ and '/deps/' in module.__spec__.cached\n"
            "    import os; assert os.path.exists(module.__spec__.cached), 'no byte-code'\n"
            "    found[name] = m.version(name)\n"
            "print(json.dumps(found))\n"
        )
        flags = [f"--volume={folder}:/deps:ro", "--user=1000:1000", "--env=PYTHONPATH=/deps/site-packages"]
        imported = containers.run(containers.base_image(), "python3", "-c", program, *_IMPORTS, flags=flags)
        assert imported.returncode == 0, imported.stderr
        seen.append((json.loads(imported.stdout), os.readlink(folder / ".lockstep" / "current")))
    assert seen[0] == seen[1]


def test_the_client_reads_zstd(client_image: str) -> None:
    done = containers.run(client_image, "-I", "-c", "import backports.zstd", flags=["--entrypoint=python3"])
    assert done.returncode == 0, done.stderr


def test_the_client_ends_as_the_contract_says(client_image: str) -> None:
    done = containers.run(client_image, "fetch", "--server", "http://127.0.0.1:9", "--target", "/deps")
    assert done.returncode == 64
    flags = ["--tmpfs=/deps:rw,mode=1777", "--env=LOCKSTEP_REQUIREMENTS=idna", "--env=LOCKSTEP_TIMEOUT=3"]
    done = containers.run(client_image, "fetch", "--server", "http://127.0.0.1:9", "--target", "/deps", flags=flags)
    assert done.returncode == 69, done.stderr


def test_the_services_image_fetches_too(service_image: str) -> None:
    """Beside the variables that it has for the service."""
    flags = ["--tmpfs=/deps:rw,mode=1777", "--env=LOCKSTEP_REQUIREMENTS=idna", "--env=LOCKSTEP_TIMEOUT=3"]
    argv = ["fetch", "--server", "http://127.0.0.1:9", "--target", "/deps"]
    done = containers.run(service_image, *argv, flags=flags)
    assert done.returncode == 69, done.stderr


# --- The chart's own Pod ---------------------------------------------------------------------------------------------


def test_the_pod_that_the_chart_describes_starts(service_image: str, tmp_path: Path) -> None:
    """Its variables, mounts, restrictions and arguments do, on an empty volume; only the network is podman's. It has
    the keys of tokens from the API server, and asks who calls."""
    documents = rendered("embedded")
    (template,) = [pod for name, pod in pods(documents) if name == "service"]
    (claim,) = copy.deepcopy(of_kind(documents, "PersistentVolumeClaim"))
    claim["metadata"]["name"] = "lockstep-under-test-data"
    claim["metadata"]["annotations"] = {"volume.podman.io/uid": str(_UID), "volume.podman.io/gid": str(_UID)}
    with cluster(tmp_path) as kubernetes:
        pod = playable(template, "lockstep-under-test", service_image, kubernetes)
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = claim["metadata"]["name"]
        with Play([claim, pod], tmp_path) as running:
            url = running.wait_until_listening("lockstep-under-test-lockstep")
            until(lambda: httpx.get(f"{url}/readyz").json() == {"status": "ready", "degraded": []})
            assert httpx.get(f"{url}/client/lockstep.pyz").status_code == 200
            statuses = [
                httpx.request(method, f"{url}{path}", headers=headers).status_code
                for method, path in (("GET", "/v1/pins"), ("DELETE", "/v1/pins/shop/checkout"))
                for headers in (
                    {},
                    {"Authorization": f"Bearer {kubernetes.token('shop')}"},
                    {"Authorization": f"Bearer {kubernetes.token('lockstep', 'lockstep-warm')}"},
                )
            ]
            assert statuses == [401, 200, 200, 401, 403, 200]
            doctor = ("lockstep", "doctor", "--network=offline", "--json")
            findings = json.loads(containers.podman("exec", "lockstep-under-test-lockstep", *doctor))["findings"]
            keys = [each for each in findings if (each["check"], each["about"]) == ("auth", "signing keys")]
            assert [each["told"] for each in keys] == [f"1 of {kubernetes.issuer}"]


# --- The jobs, with the arguments that the chart gives them ---------------------------------------------------------


def _job(name: str) -> tuple[list[str], set[int]]:
    """The arguments of a CronJob's container, and the exit codes that end it at once."""
    (job,) = [each for each in rendered("embedded") if each["metadata"]["name"] == f"lockstep-{name}"
              and each["kind"] == "CronJob"]  # fmt: skip
    spec = job["spec"]["jobTemplate"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    return container["args"], {*spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]}


def _warm(service: tuple[Container, str], image: str, folder: Path, document: object) -> tuple[int, str]:
    (_folder(folder) / "warm.yaml").write_text(yaml.safe_dump(document))
    arguments, _ = _job("warm")
    flags = [f"--volume={folder}:/etc/lockstep/warm:ro", f"--env=LOCKSTEP_SERVER={service[1]}"]
    done = containers.run(image, *arguments, flags=flags, network="host", seconds=600)
    return done.returncode, done.stdout + done.stderr


def test_warming(service: tuple[Container, str], service_image: str, tmp_path: Path) -> None:
    recent = {"days": 7, "limit": 200}
    code, said = _warm(service, service_image, tmp_path, {"recent": recent})
    assert code == 0, said
    target = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
    entry = {"name": "small", "requirements": "idna>=3", "targets": [target]}
    code, said = _warm(service, service_image, tmp_path, {"entries": [entry], "recent": recent})
    assert code == 0, said
    impossible = {**entry, "name": "impossible", "requirements": "idna<0.1"}
    code, said = _warm(service, service_image, tmp_path, {"entries": [impossible]})
    assert code == 65, said
    assert code in _job("warm")[1]


def test_keeping(service: tuple[Container, str], service_image: str, data: Path) -> None:
    """gc and fsck beside the running service, on its volume; fsck fails for damage, and mends it where told to."""
    flags = [f"--volume={data}:{_DATA}"]

    def run(*arguments: str) -> tuple[int, dict[str, object]]:
        done = containers.run(service_image, *arguments, flags=flags)
        return done.returncode, json.loads(done.stdout)

    assert run(*_job("gc")[0])[0] == 0
    arguments, final = _job("fsck")
    code, checked = run(*arguments)
    assert (code, checked["well"]) == (0, True)
    blob = max((path for path in (data / "blobs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.write(b"damage")
    code, checked = run(*arguments)
    assert (code, checked["well"]) == (1, False)
    assert code in final
    assert run(*arguments, "--repair")[0] == 0
    assert run(*arguments)[0] == 0
