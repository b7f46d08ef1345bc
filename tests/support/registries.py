"""Container tools as they are: podman, skopeo, containerd and a registry, each with a folder of its own."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

_READY_SECONDS = 30
_SYSTEM_LIBRARIES = (
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6", "libutil.so.1"),
    *("libgcc_s.so.1", "libstdc++.so.6"),
)
_FOLDERS = ("root", "runroot", "tmpdir", "network-config-dir")  # all that a podman would share with another

# What works also where a machine is itself a container: no limits and no cgroups beyond what it has.
_CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


def program(name: str, *, as_root: bool = False) -> str:
    """The program's path; skips the test where it is not installed, or needs a root that we are not."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"no {name} on this machine")
    if as_root and os.geteuid() != 0:
        pytest.skip(f"{name} is run as root here")
    return found


def run(argv: Sequence[str], **environment: str) -> str:
    """What the program printed; fails the test with all of it where it did not end well."""
    done = subprocess.run(
        argv, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Podman:
    """podman with storage of its own under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._argv = [program("podman", as_root=True), *(f"--{name}={folder}/{name}" for name in _FOLDERS)]
        program("runc")
        conf = folder / "containers.conf"
        conf.write_text(_CONTAINERS_CONF)
        self._environment = {"CONTAINERS_CONF": str(conf)}

    def __call__(self, *arguments: str) -> str:
        """Run a podman command; returns what it printed."""
        return run([*self._argv, *arguments], **self._environment)

    def close(self) -> None:
        """Remove all that is in the storage, and its mount. (`system reset` would remove what others use, too.)"""
        self("rmi", "--all", "--force")
        subprocess.run(["umount", f"{self._folder}/root/overlay"], capture_output=True, check=False)


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    # A folder of its own: podman and containerd want paths shorter than those that pytest gives.
    with tempfile.TemporaryDirectory(prefix="podman-") as folder:
        started = Podman(Path(folder))
        try:
            yield started
        finally:
            started.close()


def python_rootfs(folder: Path) -> tuple[Path, str]:
    """A root file system that has this machine's interpreter (at the path that is returned) and no more."""
    interpreter = Path(sys.executable).resolve()
    root = folder / "rootfs"
    wanted = {str(interpreter), *_libraries(interpreter)}
    for module in (Path(os.__file__).parent / "lib-dynload").glob("*.so"):
        wanted |= _libraries(module)
    # And what a wheel may expect of any system beside (PEP 600).
    libc = next(path for path in wanted if "/libc.so" in path or "/ld-musl" in path)
    beside = (Path(libc).with_name(name) for name in _SYSTEM_LIBRARIES)
    wanted |= {str(library) for library in beside if library.exists()}
    for path in wanted:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    stdlib = Path(os.__file__).parent
    shutil.copytree(
        stdlib,
        root / str(stdlib).lstrip("/"),
        ignore=shutil.ignore_patterns("test", "site-packages", "dist-packages", "config-*", "idlelib"),
        dirs_exist_ok=True,
    )
    for name in ("proc", "sys", "dev", "run", "tmp", "etc", "deps"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    return root, str(interpreter)


def _libraries(binary: Path) -> set[str]:
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    return {word for line in told.splitlines() for word in line.split() if word.startswith("/")}


class Registry:
    """docker-registry on a free port, its data under `folder`; `log` is what it wrote."""

    def __init__(self, folder: Path, *, login: tuple[str, str] | None = None, settings: str = "") -> None:
        self._folder = folder
        self._settings = settings
        self.login = login
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self._folder / "registry.log").read_text()

    def start(self) -> None:
        binary = program("docker-registry")
        auth = ""
        if self.login:
            htpasswd = run([program("htpasswd"), "-Bbn", *self.login]).strip()
            (self._folder / "htpasswd").write_text(htpasswd + "\n")
            auth = f"auth: {{htpasswd: {{realm: here, path: {self._folder}/htpasswd}}}}\n"
        conf = self._folder / "registry.yml"
        conf.write_text(
            "version: 0.1\nlog: {level: info}\n"
            f"storage: {{filesystem: {{rootdirectory: {self._folder}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}'}}\n{auth}{self._settings}"
        )
        with (self._folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen([binary, "serve", str(conf)], stdout=log, stderr=log)
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://{self.host}/v2/").status_code in (200, 401):
                    return
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"http://{self.host}/v2/{path}", headers=headers, auth=self.login, follow_redirects=True)

    def login_file(self, login: tuple[str, str] | None = None) -> Path:
        """A file as `docker login` writes it, with this login or the one that the registry asks for."""
        user, password = login or self.login or ("", "")
        path = self._folder / f"login-{hashlib.sha256(password.encode()).hexdigest()[:8]}.json"
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {self.host: {"auth": auth}}}))
        return path


@contextlib.contextmanager
def registry(folder: Path, **options: object) -> Iterator[Registry]:
    started = Registry(folder, **options)  # type: ignore[arg-type]  # the options are Registry's
    started.start()
    try:
        yield started
    finally:
        started.stop()


@contextlib.contextmanager
def containerd() -> Iterator[Sequence[str]]:
    """A containerd of its own; gives the beginning of a `ctr` command."""
    with tempfile.TemporaryDirectory(prefix="containerd-") as folder:
        yield from _containerd(Path(folder))


def _containerd(folder: Path) -> Iterator[Sequence[str]]:
    binary, ctr = program("containerd", as_root=True), program("ctr")
    conf = folder / "containerd.toml"
    conf.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{folder}/containerd.sock"\n[ttrpc]\naddress = "{folder}/ttrpc.sock"\n'
    )
    address = f"{folder}/containerd.sock"
    with (folder / "containerd.log").open("wb") as log:
        process = subprocess.Popen([binary, "--config", str(conf)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while subprocess.run([ctr, "--address", address, "version"], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "containerd.log").read_text()
            time.sleep(0.1)
        yield [ctr, "--address", address]
    finally:
        process.terminate()
        process.wait(30)
