"""What a fetch leaves in its target, under every interpreter that is here."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.bundle_server import MTIME, Bundle, BundleServer, make_bundle, sha256
from tests.unit.client.conftest import DEMO, DEMO_TREE, Client, interpreter

TAR = "application/vnd.oci.image.layer.v1.tar"


def folder_of(bundle: Bundle) -> str:
    return bundle.digest.replace(":", "-")


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_a_bundle_is_put_in_place(client: Client, server: BundleServer, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    client.python = python
    server.serve("demo\n", DEMO, {"code": "yanked", "message": "demo 1 was yanked", "package": "demo"})
    done = client.fetch("demo\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert client.tree() == DEMO_TREE
    assert os.readlink(client.target / "site-packages") == ".lockstep/current/site-packages"
    assert os.readlink(client.target / "bin") == ".lockstep/current/bin"
    assert os.readlink(client.target / ".lockstep/current") == folder_of(DEMO)
    assert client.own() == {"lock", "current", folder_of(DEMO)}
    assert subprocess.check_output([client.target / "bin/demo"], text=True) == "demo\n"
    last = done.stderr.splitlines()[-1]
    assert "ready: 2 packages" in last
    assert f"resolved, lock {sha256(b'demo' + bytes([10]))}" in last
    assert "warning: yanked: demo 1 was yanked" in done.stderr


def test_layers_come_compressed_where_the_interpreter_reads_zstd(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.flags = []  # with the site-packages that have the backport
    assert client.fetch("demo\n").returncode == 0
    assert client.tree() == DEMO_TREE
    assert {path.rpartition("/")[2] for path in server.requests if "/blobs/" in path} == set(DEMO.layers)


def test_layers_come_plain_where_it_does_not(client: Client, server: BundleServer) -> None:
    python = interpreter("3.10") or interpreter("3.11") or interpreter("3.12") or interpreter("3.13")
    if python is None:
        pytest.skip("no Python here that is old enough to lack zstd")
    client.python = python
    server.serve("demo\n", DEMO)
    assert client.fetch("demo\n").returncode == 0
    assert client.tree() == DEMO_TREE
    assert not any(digest in path for path in server.requests for digest in DEMO.layers)


def test_modes_and_times_do_not_depend_on_the_umask(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.wrapper = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    assert client.fetch("demo\n").returncode == 0
    tree = client.target / ".lockstep" / folder_of(DEMO)
    modes = {str(path.relative_to(tree)): stat.S_IMODE(path.stat().st_mode) for path in tree.rglob("*")}
    assert modes["site-packages"] == modes["bin"] == modes["site-packages/demo"] == 0o755
    assert modes["bin/demo"] == 0o755
    assert modes["site-packages/demo/__init__.py"] == 0o644
    assert (tree / "bin/demo").stat().st_mtime == MTIME


def test_the_request_is_what_the_contract_says(client: Client, server: BundleServer, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes("\ufeffdemo # naïve\n".encode())
    (tmp_path / "c.txt").write_text("demo<2\n")
    server.serve("demo # naïve\n", DEMO)
    done = client.run(
        *("-r", str(tmp_path / "r.txt"), "-c", str(tmp_path / "c.txt"), "--index", "internal", "--index", "pypi"),
        *("--namespace", "shop", "--workload", "checkout", "--revision", "6d4cf56db6"),
    )
    assert done.returncode == 0
    (body,) = server.bodies
    assert 0 <= body.pop("wait") <= 60
    target = body.pop("target")
    assert target["markers"]["sys_platform"] == "linux"
    assert target["libc"].split()[0] in ("glibc", "musl")
    assert body == {
        "requirements": "demo # naïve\n",
        "constraints": "demo<2\n",
        "indexes": ["internal", "pypi"],
        "workload": {"namespace": "shop", "name": "checkout", "revision": "6d4cf56db6"},
    }


def test_a_target_that_is_named_is_not_asked_of_the_interpreter(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    assert client.fetch("demo\n", "--python", "3.12", "--platform", "musllinux_1_2_x86_64").returncode == 0
    assert server.bodies[0]["target"] == {"python": "3.12", "platform": "musllinux_1_2_x86_64"}


def test_a_second_run_needs_no_service(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    assert client.fetch("demo\n").returncode == 0
    asked = len(server.requests)
    server.fault("/", "503")
    done = client.fetch("demo\n")
    assert done.returncode == 0
    assert "in place" in done.stderr
    assert len(server.requests) == asked
    assert client.tree() == DEMO_TREE


@pytest.mark.parametrize(
    "changed",
    [
        ["--index", "internal"],
        ["--namespace", "shop", "--workload", "checkout"],
        ["--python", "3.12", "--platform", "musllinux_1_2_x86_64"],
    ],
)
def test_a_request_that_changed_is_asked_again_and_an_equal_bundle_is_kept(
    client: Client, server: BundleServer, changed: list[str]
) -> None:
    server.serve("demo\n", DEMO)
    client.fetch("demo\n")
    before = (client.target / "site-packages/other.py").stat().st_ino
    server.requests.clear()
    assert client.fetch("demo\n", *changed).returncode == 0
    assert server.requests == ["/v1/resolve"]
    assert (client.target / "site-packages/other.py").stat().st_ino == before
    server.requests.clear()
    assert client.fetch("demo\n", *changed).returncode == 0
    assert server.requests == []


def test_a_changed_bundle_replaces_the_old_tree_whole(client: Client, server: BundleServer) -> None:
    newer = make_bundle({"site-packages/demo/new.py": b"z = 3\n"})
    server.serve("demo\n", DEMO)
    server.serve("demo>1\n", newer)
    client.fetch("demo\n")
    assert client.fetch("demo>1\n").returncode == 0
    assert client.tree() == {"site-packages/demo/new.py": "z = 3\n"}
    assert client.own() == {"lock", "current", folder_of(newer)}
    assert (client.target / "bin").is_dir()


def test_an_empty_set_gets_an_empty_tree(client: Client, server: BundleServer) -> None:
    server.serve("", make_bundle())
    assert client.fetch("").returncode == 0
    assert client.tree() == {}
    assert os.listdir(client.target / "site-packages") == os.listdir(client.target / "bin") == []


def test_a_layer_may_be_a_plain_tar(client: Client, server: BundleServer) -> None:
    empty, config = bytes(1024), b"{}"
    manifest = {
        "config": {"digest": server.add(config)},
        "layers": [{"mediaType": TAR, "digest": server.add(empty), "size": len(empty)}],
    }
    server.serve("", make_bundle(), digest=server.add(json.dumps(manifest).encode()))
    assert client.fetch("").returncode == 0
    assert client.tree() == {}


def test_a_later_layer_wins_whatever_comes_first(client: Client, server: BundleServer) -> None:
    padding = os.urandom(3_000_000)  # the larger layers are fetched first, and end last
    layers = [
        {
            "site-packages/README": f"{number}".encode(),
            f"site-packages/tests/test_{number}.py": b"",
            f"site-packages/padding_{number}": padding.hex().encode() if number % 2 else b"",
        }
        for number in range(6)
    ]
    server.serve("demo\n", make_bundle(*layers))
    assert client.fetch("demo\n").returncode == 0
    assert (client.target / "site-packages/README").read_text() == "5"
    assert len(os.listdir(client.target / "site-packages/tests")) == 6


def test_a_file_and_a_folder_of_one_name(client: Client, server: BundleServer) -> None:
    server.serve(
        "demo\n",
        make_bundle(
            {"site-packages/a": b"file", "site-packages/b/inner/x": b"folder", "site-packages/c": b"file"},
            {"site-packages/a/x": b"folder", "site-packages/b": b"file", "site-packages/c/x": b"folder"},
            {"site-packages/c": b"file again"},
        ),
    )
    assert client.fetch("demo\n").returncode == 0
    assert client.tree() == {"site-packages/a/x": "folder", "site-packages/b": "file", "site-packages/c": "file again"}


def test_a_link_that_was_removed_comes_back(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.fetch("demo\n")
    (client.target / "bin").unlink()
    server.requests.clear()
    assert client.fetch("demo\n").returncode == 0
    assert client.tree() == DEMO_TREE
    assert server.requests == []


def test_a_tree_of_an_unknown_version_is_fetched_anew(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.fetch("demo\n")
    record = client.target / ".lockstep/current/.lockstep.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": 99}))
    assert client.fetch("demo\n").returncode == 0
    assert json.loads(record.read_text())["version"] == 1
    assert client.tree() == DEMO_TREE


def test_an_operation_is_waited_for(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.polls = 2
    assert client.fetch("demo\n").returncode == 0
    assert server.count("/v1/operations/op-0") == 3
    assert client.tree() == DEMO_TREE


def test_an_operation_that_a_restarted_service_forgot_is_started_anew(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.polls = 1
    server.fault("/v1/operations", "404", times=1)
    assert client.fetch("demo\n").returncode == 0
    assert server.count("/v1/resolve") == 2


def test_a_service_behind_a_path_is_reached(client: Client, server: BundleServer, tmp_path: Path) -> None:
    server.prefix = "/lockstep"
    server.serve("demo\n", DEMO)
    server.polls = 1
    done = client.run("--server", f"{server.url}/lockstep/", LOCKSTEP_REQUIREMENTS="demo\n")
    assert done.returncode == 0
    assert client.tree() == DEMO_TREE
