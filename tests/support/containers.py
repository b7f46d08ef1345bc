"""Images and containers, for real: buildah builds, podman runs, on a base that is made from Debian packages."""

import base64
import copy
import fcntl
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import yaml

from resolver.domain.targets import PYTHONS
from tests.support.cluster import Cluster
from tests.support.interpreters import interpreter

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/lockstep-test/base:bookworm"
NATIVE = "localhost/lockstep-test/native:bookworm"
CLIENT_IN_IMAGE = "/usr/local/lib/lockstep/lockstep.pyz"
CACHE = ROOT / ".cache" / "images"
_NEEDED = ("podman", "buildah", "runc", "mmdebstrap", "tar")
_BASE_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_BUILD_SECONDS = 1200

_CERTIFICATES = "/etc/ssl/certs"

# runc and plain cgroups, events in a file: what works where no systemd runs.
_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


def needs_containers() -> None:
    """Skips the test where images cannot be built and run."""
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here")
    if os.geteuid() != 0:
        pytest.skip("images are built as root here: mmdebstrap and podman without it need more than a test can ask")
    found = _run(["podman", "info"], check=False)
    if found.returncode != 0:
        pytest.skip(f"podman does not work here: {found.stderr.strip()[-300:]}")


@contextmanager
def alone() -> Iterator[None]:
    """One process at a time makes images; the others then find them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def base_image() -> str:
    """Debian's own Python on the smallest Debian, made with no registry; kept from run to run."""
    with alone():
        return _debian(BASE, "base", _BASE_PACKAGES)


def _debian(image: str, name: str, packages: str) -> str:
    if _run(["podman", "image", "exists", image], check=False).returncode == 0:
        return image
    archive = CACHE / f"{name}.tar"
    if not archive.exists():
        making = archive.with_suffix(".making.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(making)]
        done = _run(argv, check=False)
        if done.returncode != 0:
            pytest.skip(f"no {name} image: mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        making.rename(archive)
    changes = ["ENV=LANG=C.UTF-8", "ENV=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    _run(["podman", "import", *(f"--change={change}" for change in changes), str(archive), image])
    return image


@functools.cache
def native_image() -> str:
    """The base with what compiles C for its Python, as the image of a native builder; kept from run to run."""
    with alone():
        return _debian(NATIVE, "native", f"{_BASE_PACKAGES},python3-dev,gcc,libc6-dev")


def image_of_client(client: bytes, tag: str) -> str:
    """A client's image as far as builders need one: the base, and the client where it is in the `client` image."""
    base = base_image()
    with alone(), tempfile.TemporaryDirectory() as folder:
        Path(folder, "lockstep.pyz").write_bytes(client)
        Path(folder, "Containerfile").write_text(f"FROM {base}\nCOPY lockstep.pyz {CLIENT_IN_IMAGE}\n")
        _run(["buildah", "build", "--network=host", "--pull-never", f"--tag={tag}", folder], seconds=_BUILD_SECONDS)
    return tag


@functools.cache
def interpreter_images() -> dict[str, str]:
    """Images with an interpreter under /usr/local, for those minor versions of this machine that run on the base."""
    base = base_image()
    with alone():
        images = {version: _interpreter_image(version, base) for version in PYTHONS}
    return {version: image for version, image in images.items() if image is not None}


def _interpreter_image(version: str, base: str) -> str | None:
    image = f"localhost/lockstep-test/python:{version}"
    if _run(["podman", "image", "exists", image], check=False).returncode == 0:
        return image
    found = interpreter(version)
    if found is None:
        return None
    prefix = subprocess.check_output([found, "-I", "-c", "import sys; print(sys.base_prefix)"], text=True).strip()
    if prefix == "/usr" or not Path(prefix, "bin", f"python{version}").exists():
        return None
    argv = ["podman", "run", "--rm", "--network=host", "--volume", f"{prefix}:/usr/local:ro"]
    argv += ["--env", "LD_LIBRARY_PATH=/usr/local/lib", base, f"/usr/local/bin/python{version}", "-I", "-c", ""]
    if _run(argv, check=False).returncode != 0:
        return None
    names = [f"bin/python{version}", f"lib/python{version}"]
    names += [str(path.relative_to(prefix)) for path in Path(prefix).glob(f"lib/libpython{version}*.so*")]
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        left_out = [f"--exclude={name}" for name in ("site-packages", "test", "__pycache__", "config-*")]
        _run(["tar", "-C", prefix, "-cf", archive.name, "--transform=s,^,usr/local/,S", *left_out, *names])
        _run(["podman", "import", archive.name, image])
    return image


def build(target: str, tag: str) -> str:
    """The Dockerfile's target, built on the local base; returns its tag."""
    base = base_image()
    pythons = interpreter_images()
    arguments = {"SERVICE_BASE": base, "CLIENT_BASE": base, "REVISION": "under-test"}
    arguments |= {f"PYTHON_{version.replace('.', '_')}": pythons.get(version, base) for version in PYTHONS}
    argv = ["buildah", "build", "--layers", "--format=docker", "--network=host", "--pull-never", f"--target={target}"]
    argv += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    argv += [flag for flag in trusting() if flag.startswith("--volume")]  # a variable would stay in the image
    with alone():
        _run([*argv, f"--tag={tag}", "."], seconds=_BUILD_SECONDS)
    return tag


def podman(*arguments: str) -> str:
    """What a podman command prints; it has to end well."""
    return _run(["podman", *arguments]).stdout


def log(container: str) -> str:
    """What it wrote."""
    done = _run(["podman", "logs", container])
    return done.stdout + done.stderr


def inspect(image: str) -> dict[str, Any]:
    """The image's configuration."""
    (found,) = json.loads(_run(["podman", "image", "inspect", image]).stdout)
    assert isinstance(found, dict)
    return found


# As a restricted Pod with a read-only root runs it; a Pod's /tmp is an emptyDir.
_RESTRICTED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:rw,mode=1777"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
)


def trusting() -> list[str]:
    """Flags with which a container reaches the package indexes that this machine reaches."""
    paths = [path for path in (_CERTIFICATES, "/etc/pip.conf") if Path(path).exists()]
    # As the chart's `trustedCertificates` does: uv trusts its own list otherwise.
    certificates = [f"--env=SSL_CERT_FILE={_CERTIFICATES}/ca-certificates.crt"] if _CERTIFICATES in paths else []
    return [*(f"--volume={path}:{path}:ro" for path in paths), *certificates]


def run(
    image: str, *command: str, flags: Sequence[str] = (), network: str = "none", seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """One container, to its end."""
    argv = ["podman", "run", "--rm", *_RESTRICTED, f"--network={network}", *flags, image, *command]
    return _run(argv, check=False, seconds=seconds)


class Container:
    """A container in the background, on this machine's network; stopped and removed at the end."""

    def __init__(self, image: str, *command: str, flags: Sequence[str] = ()) -> None:
        self._argv = ["podman", "run", "--detach", *_RESTRICTED, "--network=host", *flags, image, *command]
        self.name = ""

    def __enter__(self) -> Self:
        self.name = _run(self._argv).stdout.strip()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _run(["podman", "rm", "--force", "--volumes", "--time=5", self.name])

    def log(self) -> str:
        """What it wrote."""
        return log(self.name)

    def execute(self, *command: str) -> str:
        """What a program prints in it."""
        return _run(["podman", "exec", self.name, *command]).stdout

    def healthy(self) -> bool:
        """Whether the image's own health check says so."""
        return _run(["podman", "healthcheck", "run", self.name], check=False).returncode == 0

    def wait_until_listening(self, seconds: float = 60) -> str:
        """The URL at which it listens, once it does."""
        return _listening(self.log, seconds)


def playable(template: Mapping[str, Any], name: str, image: str, cluster: Cluster) -> dict[str, Any]:
    """A Pod of the chart's service for `podman kube play`: on this machine's network, without what only a kubelet
    does, listening on a free port. `cluster` stands in for the API server, over TLS: podman refuses a projected
    volume, and gets the folder with what would be in it."""
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(dict(template))}
    pod["metadata"]["name"] = name
    pod["spec"]["hostNetwork"] = True
    (container,) = pod["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "Never"}
    for kubelets in ("ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
        del container[kubelets]
    (listen,) = [each for each in container["env"] if each["name"] == "LOCKSTEP_LISTEN"]
    listen["value"] = "127.0.0.1:0"
    for volume in pod["spec"]["volumes"]:
        if volume.pop("projected", None):
            volume["hostPath"] = {"path": str(_service_account(cluster)), "type": "Directory"}
        if secret := volume.pop("secret", None):  # which podman mounts with its values in base64
            volume["configMap"] = {"name": secret["secretName"]}
    address = urlsplit(cluster.url)  # of which a kubelet tells every container
    container["env"].append({"name": "KUBERNETES_SERVICE_HOST", "value": address.hostname})
    container["env"].append({"name": "KUBERNETES_SERVICE_PORT", "value": str(address.port)})
    return pod


def _service_account(cluster: Cluster) -> Path:
    assert cluster.folder is not None
    folder = cluster.folder / "mounted"
    folder.mkdir(exist_ok=True)
    for name in ("token", "ca.crt"):
        shutil.copy(cluster.folder / name, folder)
    return folder


class Play:
    """Pods and what they need, as `podman kube play` runs them; all of it is removed at the end, volumes and secrets
    too.

    podman takes no part in fsGroup: a claim names its owner by `volume.podman.io/uid` and `gid`.
    """

    def __init__(
        self,
        documents: Sequence[Mapping[str, Any]],
        folder: Path,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._documents = documents
        self._manifest = folder / "manifest.yaml"
        self._secrets = secrets or {}

    def __enter__(self) -> Self:
        self._manifest.write_text(yaml.safe_dump_all(self._documents))
        for name, values in self._secrets.items():
            # In the form that podman reads variables out of; a Secret in the manifest it keeps in another.
            data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
            _run(["podman", "secret", "rm", name], check=False)  # of a run that was killed
            _run(["podman", "secret", "create", name, "-"], stdin=json.dumps(data))
        self._remove_claims()  # likewise
        _run(["podman", "kube", "play", "--replace", str(self._manifest)])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _run(["podman", "kube", "down", str(self._manifest)])
        self._remove_claims()
        for document in self._documents:
            for volume in document.get("spec", {}).get("volumes", ()):
                if {"emptyDir", "configMap"} & set(volume):  # podman keeps these, by their names
                    name = volume.get("configMap", {}).get("name", volume["name"])
                    _run(["podman", "volume", "rm", "--force", name], check=False)
        for name in self._secrets:
            _run(["podman", "secret", "rm", name])

    def _remove_claims(self) -> None:
        for document in self._documents:
            if document["kind"] == "PersistentVolumeClaim":
                _run(["podman", "volume", "rm", document["metadata"]["name"]], check=False)

    def ended(self, container: str, seconds: float = 120) -> tuple[int, str]:
        """The exit code of its container (POD-NAME), once it has ended, and what it wrote."""
        code = int(_run(["podman", "wait", container], seconds=seconds).stdout)
        return code, log(container)

    def restart(self, container: str) -> None:
        """As a kubelet does with a container that ended."""
        _run(["podman", "start", container])

    def kill(self, container: str) -> None:
        """SIGKILL, as a node's failure would."""
        _run(["podman", "kill", "--signal=KILL", container])

    def wait_until_listening(self, container: str, seconds: float = 60) -> str:
        """The URL at which its container (POD-NAME) listens, once it does."""
        return _listening(lambda: log(container), seconds)


def _listening(log: Callable[[], str], seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in log().splitlines():
            if line.startswith("{") and (event := json.loads(line)).get("event") == "service.listening":
                return f"http://127.0.0.1:{event['port']}"
        time.sleep(0.2)
    raise AssertionError(f"it does not listen:\n{log()}")


def _run(
    argv: Sequence[str], *, check: bool = True, seconds: float = 600, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv, cwd=ROOT, env=_environment(), input=stdin, capture_output=True, text=True, timeout=seconds
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        )
    return done


@functools.cache
def _environment() -> Mapping[str, str]:
    CACHE.mkdir(parents=True, exist_ok=True)
    configuration = CACHE / "containers.conf"
    configuration.write_text(_CONFIGURATION)
    return {**os.environ, "CONTAINERS_CONF": str(configuration)}
