"""Runs that are killed, runs that meet, and readers in between."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundle_server import Bundle, BundleServer, make_bundle
from tests.unit.client.conftest import Client

LAYERS = 12
FILES = 20


def made(version: str) -> Bundle:
    """Every file says which version it is of, and there are as many in each."""
    layers = [
        {f"site-packages/package_{layer}/module_{file}.py": f"{version}\n".encode() for file in range(FILES)}
        for layer in range(LAYERS)
    ]
    return make_bundle(*layers)


OLD, NEW = made("old"), made("new")


def is_whole(client: Client, version: str) -> bool:
    tree = client.tree()
    return len(tree) == LAYERS * FILES and set(tree.values()) == {f"{version}\n"}


@pytest.mark.parametrize("blobs", [1, 4, LAYERS])  # layers; the config is one blob more
def test_a_run_that_was_killed_is_repaired_by_the_next(client: Client, server: BundleServer, blobs: int) -> None:
    server.serve("old\n", OLD)
    server.serve("new\n", NEW)
    assert client.fetch("old\n").returncode == 0
    server.requests.clear()
    reached, going_on = threading.Event(), threading.Event()

    def on_blob() -> None:
        if server.count("/v1/blobs") > blobs and not reached.is_set():
            reached.set()
            going_on.wait(30)

    server.on_blob = on_blob
    running = client.start(LOCKSTEP_REQUIREMENTS="new\n")
    assert reached.wait(30)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    going_on.set()
    assert running.returncode == -signal.SIGKILL
    assert is_whole(client, "old")
    assert "staging" in client.own()
    assert client.fetch("new\n").returncode == 0
    assert is_whole(client, "new")
    assert client.own() == {"lock", "current", NEW.digest.replace(":", "-")}


def test_what_a_killed_run_left_is_removed_also_where_the_bundle_is_in_place(
    client: Client, server: BundleServer
) -> None:
    server.serve("old\n", OLD)
    client.fetch("old\n")
    own = client.target / ".lockstep"
    (own / "staging/3/site-packages").mkdir(parents=True)
    (own / "sha256-0").mkdir()
    (own / "current.new").symlink_to("sha256-0")
    server.requests.clear()
    assert client.fetch("old\n").returncode == 0
    assert client.own() == {"lock", "current", OLD.digest.replace(":", "-")}
    assert server.requests == []


def test_runs_at_one_time_for_one_request_fetch_once(client: Client, server: BundleServer) -> None:
    server.serve("old\n", OLD)
    running = [client.start(LOCKSTEP_REQUIREMENTS="old\n") for _ in range(4)]
    for each in running:
        each.communicate(timeout=60)
    assert [each.returncode for each in running] == [0] * 4
    assert server.count("/v1/resolve") == 1
    assert is_whole(client, "old")


def test_runs_at_one_time_for_different_requests_do_not_mix(client: Client, server: BundleServer) -> None:
    server.serve("old\n", OLD)
    server.serve("new\n", NEW)
    running = [client.start(LOCKSTEP_REQUIREMENTS=text) for text in ("old\n", "new\n") * 3]
    for each in running:
        each.communicate(timeout=60)
    assert [each.returncode for each in running] == [0] * 6
    assert is_whole(client, "old") or is_whole(client, "new")
    assert len(client.own()) == 3


def test_a_run_that_waits_for_another_in_vain_says_so(client: Client, server: BundleServer) -> None:
    server.serve("old\n", OLD)
    reached, going_on = threading.Event(), threading.Event()

    def on_blob() -> None:
        reached.set()
        going_on.wait(30)

    server.on_blob = on_blob
    first = client.start(LOCKSTEP_REQUIREMENTS="old\n")
    assert reached.wait(30)
    second = client.fetch("old\n", "--timeout", "0.5")
    going_on.set()
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 69)
    assert "another fetch was at work" in second.stderr


READER = """
import os, sys
target, stop = sys.argv[1:]
seen, torn = set(), 0
while not os.path.exists(stop):
    before = os.readlink(f"{target}/.lockstep/current")
    try:
        folder = f"{target}/site-packages"
        files = [f"{folder}/{p}/{m}" for p in os.listdir(folder) for m in os.listdir(f"{folder}/{p}")]
        content = [open(path).read() for path in files]
    except OSError:
        content = None
    if os.readlink(f"{target}/.lockstep/current") != before:
        continue  # it flipped meanwhile, and what was read first may be gone
    if content is None or len(content) != int(os.environ["WHOLE"]) or len(set(content)) != 1:
        torn += 1
        continue
    seen.add(content[0].strip())
print(sorted(seen), torn)
"""


def test_a_reader_never_sees_a_part(client: Client, server: BundleServer, tmp_path: Path) -> None:
    server.serve("old\n", OLD)
    server.serve("new\n", NEW)
    client.fetch("old\n")
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        [client.python, "-c", READER, str(client.target), str(stop)],
        env={**os.environ, "WHOLE": str(LAYERS * FILES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for text in ("new\n", "old\n") * 2:
            assert client.fetch(text).returncode == 0
    finally:
        stop.touch()
        told, _ = reader.communicate(timeout=30)
    assert told.strip() == "['new', 'old'] 0"


def test_targets_are_apart(another: Callable[[Path], Client], server: BundleServer, tmp_path: Path) -> None:
    server.serve("old\n", OLD)
    server.serve("new\n", NEW)
    clients = [another(tmp_path / name) for name in ("a", "b")]
    running = [each.start(LOCKSTEP_REQUIREMENTS=text) for each, text in zip(clients, ("old\n", "new\n"), strict=True)]
    for each in running:
        each.communicate(timeout=60)
    assert is_whole(clients[0], "old")
    assert is_whole(clients[1], "new")


HEAVY = make_bundle(*({f"site-packages/heavy_{number}.bin": os.urandom(2_500_000)} for number in range(3)))


def test_large_layers_come_several_at_a_time(client: Client, server: BundleServer) -> None:
    server.serve("heavy\n", HEAVY)
    client.flags = []  # compressed: no image config is fetched first
    together = threading.Barrier(2)
    met = threading.Event()

    def on_blob() -> None:
        if not met.is_set():
            together.wait(30)  # breaks, and so fails the request, where nobody else comes
            met.set()

    server.on_blob = on_blob
    assert client.fetch("heavy\n").returncode == 0
    assert met.is_set()
    sizes = [path.stat().st_size for path in (client.target / "site-packages").iterdir()]
    assert sizes == [2_500_000] * 3


def test_one_layer_that_cannot_be_had_ends_the_others(client: Client, server: BundleServer) -> None:
    server.serve("heavy\n", HEAVY)
    client.flags = []
    server.fault(HEAVY.layers[0], "wrong-bytes")
    server.fault(HEAVY.layers[1], "503", headers={"Retry-After": "40"})
    started = time.monotonic()
    done = client.fetch("heavy\n")
    assert done.returncode == 76, done.stderr
    assert time.monotonic() - started < 40
    assert client.own() == {"lock"}
