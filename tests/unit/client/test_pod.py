"""As in a Pod: uid 1000, a read-only root, no home folder, a target of its own that can fill up."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.client.build import archive
from tests.support.bundle_server import BundleServer, make_bundle
from tests.unit.client.conftest import DEMO, DEMO_TREE, Client, interpreter

AS_USER = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
# A mount namespace of its own, in which the target alone can be written.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
TINY = 'mount -t tmpfs -o size=2m,mode=1777 tmpfs "$0" && "$@"; code=$?; find "$0" -mindepth 1 | sort; exit $code'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def pod(folder: Path, server: BundleServer) -> Client:
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, setpriv and unshare to become another user in another mount namespace")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    found = [python for version in ("3.13", "3.12", "3.11", "3.10") if (python := interpreter(version))]
    found += [f"/usr/bin/python3.{minor}" for minor in range(10, 15)]
    reached = [each for each in found if Path(each).exists() and not subprocess.run([*AS_USER, each, "-V"]).returncode]
    if not reached:
        pytest.skip("no interpreter here that uid 1000 can run")
    (folder / "target").mkdir()
    (folder / "lockstep.pyz").write_bytes(archive())
    client = Client(folder / "lockstep.pyz", server, folder / "target")
    client.python = reached[0]
    return client


def test_uid_1000_with_a_read_only_root_and_no_home(pod: Client, server: BundleServer) -> None:
    os.chown(pod.target, 1000, 1000)
    server.serve("demo\n", DEMO)
    pod.wrapper = ["unshare", "-m", "sh", "-c", READ_ONLY, str(pod.target), *AS_USER]
    done = pod.fetch("demo\n", "--on-failure", "fallback")
    assert done.returncode == 0, done.stderr
    assert pod.tree() == DEMO_TREE
    assert {path.lstat().st_uid for path in pod.target.rglob("*")} == {1000}


def test_a_bundle_in_place_needs_no_write(pod: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    assert pod.fetch("demo\n", "--on-failure", "fallback").returncode == 0
    server.requests.clear()
    pod.wrapper = ["unshare", "-m", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
    done = pod.fetch("demo\n", "--on-failure", "fallback")
    assert done.returncode == 0, done.stderr
    assert server.requests == []


@pytest.mark.parametrize("arguments", [(), ("--on-failure", "fallback")])
def test_a_target_that_uid_1000_cannot_write_is_73(
    pod: Client, server: BundleServer, arguments: tuple[str, ...]
) -> None:
    server.serve("demo\n", DEMO)
    pod.wrapper = AS_USER
    done = pod.fetch("demo\n", *arguments)
    assert done.returncode == 73, done.stderr
    assert os.listdir(pod.target) == []


def test_a_target_that_fills_up_is_73_and_is_left_empty(pod: Client, server: BundleServer) -> None:
    random = os.urandom(4_000_000)
    server.serve("demo\n", make_bundle({"site-packages/large.bin": random}), unpacked_size=1000)
    pod.wrapper = ["unshare", "-m", "sh", "-c", TINY, str(pod.target)]
    done = pod.fetch("demo\n")
    assert done.returncode == 73, done.stderr
    assert "No space left on device" in done.stderr
    own = f"{pod.target}/.lockstep"
    assert done.stdout.split() == [own, f"{own}/lock"]
    pod.target.rmdir()
    pod.target.mkdir()
    falling_back = pod.fetch("demo\n", "--on-failure", "fallback")
    assert falling_back.returncode == 0, falling_back.stderr
    assert falling_back.stdout.split() == [own, f"{own}/lock", f"{pod.target}/requirements.txt"]
