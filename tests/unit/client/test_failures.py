"""Every exit code, what is said, what is tried again, and that a failure leaves nothing behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.bundle_server import BundleServer, make_bundle, make_tar
from tests.unit.client.conftest import DEMO, DEMO_TREE, Client, Finished
from tests.unit.client.test_unpack import HOSTILE

SOON = ("--timeout", "1")


def assert_nothing_left(client: Client) -> None:
    assert client.own() <= {"lock"}
    assert set(os.listdir(client.target)) <= {".lockstep", "requirements.txt"}


def code(done: Finished) -> int:
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--no-such-flag"], "--no-such-flag"),
        (["--server", "ftp://x"], "http://"),
        (["--server", "http://user:s3cret@host"], "--token-file"),
        (["--server", "http://host/?q=s3cret"], "query"),
        (["--server", "http://host:port"], "--server"),
        (["--server", "http://host:99999"], "port"),
        (["--server", "http://[::1"], "host"),
        (["--server", "http://::1"], "host"),
        (["--server", "http://.host"], "host"),
        (["--server", f"http://{'h' * 64}"], "host"),
        (["--server", "http:///path"], "host"),
        (["--server"], "--server"),
        (["--timeout", "--server"], "--timeout"),
        (["one-too-many"], "belongs to no flag"),
        (["--ca-file", "/no/such/file"], "--ca-file"),
    ],
)
def test_bad_usage_is_64(client: Client, arguments: list[str], told: str) -> None:
    done = client.fetch("demo\n", *arguments)
    assert code(done) == 64
    assert told in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["serve"], ["--server", "http://x"]])
def test_another_command_is_64(pyz: Path, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, str(pyz), *arguments], capture_output=True, text=True, timeout=60)
    assert code(done) == 64
    assert "the command is fetch" in done.stderr


@pytest.mark.parametrize("status_slug", [(422, "no-solution"), (422, "build-required"), (413, "request-too-large")])
def test_a_refusal_is_65_and_its_explanation_is_whole(
    client: Client, server: BundleServer, status_slug: tuple[int, str]
) -> None:
    hints = ["Because demo 1 depends on x>2\nand x<2 was asked for", "nothing can be chosen"]
    server.refuse("demo\n", *status_slug, "No solution", detail="demo and x disagree", hints=hints, retryable=False)
    done = client.fetch("demo\n")
    assert code(done) == 65
    said = [line.split(" s  ", 1)[1].strip() for line in done.stderr.splitlines()]
    assert said[-5:] == [
        "failed: No solution: demo and x disagree",
        "Because demo 1 depends on x>2",
        "and x<2 was asked for",
        "nothing can be chosen",
        "request_id: 0a1b2c",
    ]
    assert server.count("/v1/resolve") == 1
    assert_nothing_left(client)


def test_a_refusal_of_an_operation_is_65(client: Client, server: BundleServer) -> None:
    server.refuse("demo\n", 422, "no-solution", "No solution", hints=["because"])
    server.polls = 1
    assert code(client.fetch("demo\n")) == 65
    assert server.count("/v1/resolve") == 1


def test_an_operation_that_failed_for_good_is_not_started_anew(client: Client, server: BundleServer) -> None:
    server.refuse("demo\n", 500, "internal", "Broken", retryable=False)
    server.polls = 1
    assert code(client.fetch("demo\n")) == 69
    assert server.count("/v1/resolve") == 1


def test_an_operation_that_failed_in_passing_is_started_anew(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.polls = 1
    server.fault("/v1/operations", "504", times=1)
    assert code(client.fetch("demo\n")) == 0
    assert server.count("/v1/resolve") == 2


def test_requirements_that_are_not_utf8_are_65(client: Client, server: BundleServer, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"demo # caf\xe9\n")
    done = client.run("-r", str(tmp_path / "r.txt"))
    assert code(done) == 65
    assert "not UTF-8" in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        *(("/v1/resolve", kind) for kind in ("500", "503", "429", "half", "refuse", "hang", "garbage")),
        ("/v1/bundles", "504"),
        ("/v1/blobs", "half"),
        ("/v1/blobs", "hang"),
    ],
)
def test_a_service_that_does_not_recover_is_69(client: Client, server: BundleServer, where: str, kind: str) -> None:
    server.serve("demo\n", DEMO)
    server.fault(where, kind)
    assert code(client.fetch("demo\n", *SOON)) == 69
    assert_nothing_left(client)


def test_a_service_that_is_not_there_is_69(client: Client) -> None:
    done = client.fetch("demo\n", *SOON, "--server", "http://127.0.0.1:9")
    assert code(done) == 69
    assert "cannot be reached" in done.stderr


def test_a_name_that_does_not_resolve_is_69(client: Client) -> None:
    assert code(client.fetch("demo\n", *SOON, "--server", "http://lockstep.invalid")) == 69


def test_an_operation_without_end_is_69(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.polls = 1_000_000
    done = client.fetch("demo\n", *SOON)
    assert code(done) == 69
    assert "--timeout" in done.stderr


def test_an_answer_of_another_shape_is_69(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO, digest="sha256:../../etc")
    assert code(client.fetch("demo\n")) == 69
    assert_nothing_left(client)


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        *(("/v1/resolve", kind) for kind in ("500", "503", "429", "half", "refuse")),
        *(("/v1/bundles", kind) for kind in ("503", "half", "wrong-bytes")),
        *((DEMO.layers[0], kind) for kind in ("503", "half", "refuse", "wrong-bytes")),
    ],
)
def test_what_can_pass_is_tried_again(client: Client, server: BundleServer, where: str, kind: str) -> None:
    server.serve("demo\n", DEMO)
    server.fault(where, kind, times=1)
    client.flags = []
    done = client.fetch("demo\n")
    assert code(done) == 0
    assert server.count(where) == 2
    # A kept connection that ends without an answer may have been closed before we asked: no failure, nothing is said.
    closed_while_kept = kind == "refuse" and where != "/v1/resolve"
    assert ("trying again" in done.stderr) != closed_while_kept
    assert client.tree() == DEMO_TREE


def test_retry_after_is_honoured(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.fault("/v1/resolve", "503", times=1, headers={"Retry-After": "1000"})
    done = client.fetch("demo\n", "--timeout", "60")
    assert code(done) == 69  # at once: it would be too late to come back
    assert server.count("/v1/resolve") == 1


def test_a_server_error_that_says_it_will_not_pass_is_not_tried_again(client: Client, server: BundleServer) -> None:
    server.refuse("demo\n", 500, "internal", "Broken", retryable=False)
    assert code(client.fetch("demo\n")) == 69
    assert server.count("/v1/resolve") == 1


LARGE = make_bundle({"site-packages/large.bin": os.urandom(1_000_000), "site-packages/last.py": b"x = 1\n"})


@pytest.mark.parametrize("flags", [[], ["-I", "-S"]], ids=["zstd", "plain"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_layer_that_breaks_off_is_taken_up_where_it_ended(
    client: Client, server: BundleServer, flags: list[str], ranges: bool
) -> None:
    server.serve("large\n", LARGE)
    server.ranges = ranges
    client.flags = flags
    layer = max(LARGE.blobs, key=lambda digest: len(LARGE.blobs[digest])) if flags else LARGE.layers[0]
    server.fault(layer, "half", times=1)
    done = client.fetch("large\n")
    assert code(done) == 0, done.stderr
    assert server.count(layer) == 2
    assert server.asked_ranges == [f"bytes={len(LARGE.blobs[layer]) // 2}-"]
    assert (client.target / "site-packages/last.py").read_text() == "x = 1\n"


def test_a_layer_that_breaks_off_and_comes_back_wrong_is_fetched_anew(client: Client, server: BundleServer) -> None:
    server.serve("large\n", LARGE)
    server.fault("/v1/blobs", "half", times=2)  # one of them is the image config
    server.fault("/v1/blobs", "wrong-bytes", times=2)
    assert code(client.fetch("large\n")) == 0
    assert (client.target / "site-packages/last.py").read_text() == "x = 1\n"


@pytest.mark.parametrize("status", ["503", "429"])
def test_a_service_that_is_busy_is_asked_again_when_it_said(client: Client, server: BundleServer, status: str) -> None:
    server.serve("demo\n", DEMO)
    server.fault("/v1/blobs", status, times=3, headers={"Retry-After": "1"})
    started = time.monotonic()
    done = client.fetch("demo\n")
    assert code(done) == 0
    assert time.monotonic() - started >= 1
    assert client.tree() == DEMO_TREE
    assert done.stderr.count("trying again in") == 3


@pytest.mark.parametrize("name", ["site-packages", "bin"])
def test_what_is_not_ours_is_left_alone_and_is_73(client: Client, server: BundleServer, name: str) -> None:
    (client.target / name).mkdir(parents=True)
    (client.target / name / "theirs").write_text("precious")
    server.serve("demo\n", DEMO)
    done = client.fetch("demo\n")
    assert code(done) == 73
    assert f"{name} is there already" in done.stderr
    assert (client.target / name / "theirs").read_text() == "precious"
    assert server.requests == []


def test_a_target_that_is_a_file_is_73(client: Client) -> None:
    client.target.write_text("a file")
    assert code(client.fetch("demo\n")) == 73


def test_a_bundle_that_has_no_room_is_73_before_a_byte_is_fetched(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO, unpacked_size=10**15)
    done = client.fetch("demo\n")
    assert code(done) == 73
    assert "has room for" in done.stderr
    assert server.count("/v1/blobs") == 0
    assert_nothing_left(client)


@pytest.mark.parametrize("where", ["/v1/bundles", DEMO.layers[1]])
def test_wrong_bytes_are_76_after_three_times(client: Client, server: BundleServer, where: str) -> None:
    server.serve("demo\n", DEMO)
    server.fault(where, "wrong-bytes")
    client.flags = []
    assert code(client.fetch("demo\n")) == 76
    assert server.count(where) == 3
    assert_nothing_left(client)


def test_wrong_bytes_leave_the_old_tree_in_place(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.serve("new\n", make_bundle({"site-packages/new.py": b""}))
    client.fetch("demo\n")
    server.fault("/v1/blobs", "wrong-bytes")
    assert code(client.fetch("new\n")) == 76
    assert client.tree() == DEMO_TREE


@pytest.mark.parametrize("name", ["a symbolic link", "a path that climbs", "no tar", "half a file"])
def test_a_hostile_layer_is_76_and_nothing_of_it_stays(client: Client, server: BundleServer, name: str) -> None:
    server.serve("demo\n", make_bundle({"site-packages/good.py": b""}, HOSTILE[name]))
    done = client.fetch("demo\n")
    assert code(done) == 76
    assert "is no layer" in done.stderr
    assert_nothing_left(client)


def test_a_layer_that_is_no_zstd_is_76(client: Client, server: BundleServer) -> None:
    bundle = make_bundle({"site-packages/good.py": b""})
    manifest = json.loads(bundle.blobs[bundle.digest])
    tar = make_tar({"site-packages/good.py": b""})
    manifest["layers"][0]["digest"] = next(digest for digest, blob in bundle.blobs.items() if blob == tar)
    content = json.dumps(manifest).encode()
    server.serve("demo\n", bundle, digest=server.add(content))
    client.flags = []
    assert code(client.fetch("demo\n")) == 76
    assert_nothing_left(client)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"garbage", b'{"layers": [{"mediaType": "text/plain"}]}'])
def test_a_manifest_that_is_none_is_76(client: Client, server: BundleServer, content: bytes) -> None:
    server.serve("demo\n", DEMO, digest=server.add(content))
    assert code(client.fetch("demo\n")) == 76
    assert_nothing_left(client)


@pytest.mark.parametrize("token", [None, "wrong", "two words", "", "caf\xe9"])
def test_no_valid_token_is_77(client: Client, server: BundleServer, tmp_path: Path, token: str | None) -> None:
    server.token = "s3cret"
    server.serve("demo\n", DEMO)
    arguments = []
    if token is not None:
        (tmp_path / "token").write_text(token)
        arguments = ["--token-file", str(tmp_path / "token")]
    done = client.fetch("demo\n", *arguments)
    assert code(done) == 77
    assert not token or token not in done.stderr


def test_a_token_file_that_is_not_there_is_77(client: Client, server: BundleServer) -> None:
    assert code(client.fetch("demo\n", "--token-file", "/no/such/token")) == 77
    assert server.requests == []


def test_a_terminal_is_not_told_what_to_do(client: Client, server: BundleServer) -> None:
    server.refuse("demo\n", 422, "no-solution", "No \x1b]0;owned\x07 solution")
    assert "\x1b" not in client.fetch("demo\n").stderr
