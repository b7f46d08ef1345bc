"""The client as its users run it: the zipapp, in a process of its own, under whichever interpreters are here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.client.build import archive
from tests.support.bundle_server import BundleServer, make_bundle

Finished = subprocess.CompletedProcess[str]

DEMO = make_bundle(
    {"site-packages/demo/__init__.py": b"x = 1\n", "bin/demo": (b"#!/bin/sh\necho demo\n", 0o755)},
    {"site-packages/other.py": b"y = 2\n", "site-packages/shared.txt": b"other's\n"},
)
DEMO_TREE = {
    "site-packages/demo/__init__.py": "x = 1\n",
    "site-packages/other.py": "y = 2\n",
    "site-packages/shared.txt": "other's\n",
    "bin/demo": "#!/bin/sh\necho demo\n",
}


def usable(python: str) -> bool:
    """Whether this is an interpreter that runs: version managers leave names on PATH that do not."""
    try:
        return subprocess.run([python, "-I", "-S", "-c", ""], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def interpreter(version: str) -> str | None:
    """An interpreter of this minor version: on PATH, or where pyenv keeps its own."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    candidates = [shutil.which(f"python{version}"), *map(str, kept)]
    return next((each for each in candidates if each is not None and usable(each)), None)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("client") / "lockstep.pyz"
    path.write_bytes(archive())
    return path


@pytest.fixture
def server() -> Iterator[BundleServer]:
    with BundleServer() as server:
        yield server


class Client:
    """Runs `lockstep.pyz fetch` against a server, into a target."""

    def __init__(self, pyz: Path, server: BundleServer, target: Path) -> None:
        self.pyz = pyz
        self.server = server
        self.target = target
        self.python = sys.executable
        self.flags = ["-I", "-S"]
        self.wrapper: list[str] = []

    def command(self, *arguments: str) -> list[str]:
        where = ["--server", self.server.url, "--target", str(self.target)]
        return [*self.wrapper, self.python, *self.flags, str(self.pyz), "fetch", *where, *arguments]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), text=True, env=_environment(environment), stderr=subprocess.PIPE
        )

    def run(self, *arguments: str, **environment: str) -> Finished:
        return subprocess.run(
            self.command(*arguments), text=True, env=_environment(environment), capture_output=True, timeout=60
        )

    def fetch(self, requirements: str, *arguments: str) -> Finished:
        """Run for this text."""
        return self.run(*arguments, LOCKSTEP_REQUIREMENTS=requirements)

    def tree(self) -> dict[str, str]:
        """What the links show: path → content."""
        return {
            str((Path(folder) / name).relative_to(self.target)): (Path(folder) / name).read_text()
            for root in ("site-packages", "bin")
            for folder, _, names in os.walk(self.target / root)
            for name in names
        }

    def own(self) -> set[str]:
        """The names in DIR/.lockstep."""
        return set(os.listdir(self.target / ".lockstep"))


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


@pytest.fixture
def client(pyz: Path, server: BundleServer, tmp_path: Path) -> Client:
    return Client(pyz, server, tmp_path / "target")


@pytest.fixture
def another(pyz: Path, server: BundleServer) -> Callable[[Path], Client]:
    return lambda target: Client(pyz, server, target)
