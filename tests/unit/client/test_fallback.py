"""`--on-failure fallback`: whoever installs after us does nothing, or does what it did before Lockstep."""

import os
import sys
from pathlib import Path

import pytest

from resolver.client import fallback
from resolver.client import fetch as story
from resolver.client.arguments import parse
from resolver.client.console import Console
from resolver.client.errors import Unavailable
from tests.support.bundle_server import BundleServer, make_bundle
from tests.unit.client.conftest import DEMO, DEMO_TREE, Client

FALLBACK = ("--on-failure", "fallback", "--timeout", "2")
TEXT = "demo  # as it was written\n\n-r other.txt\n"


def left(client: Client) -> str:
    return (client.target / "requirements.txt").read_text()


def test_success_leaves_nothing_to_install(client: Client, server: BundleServer) -> None:
    server.serve(TEXT, DEMO)
    assert client.fetch(TEXT, *FALLBACK).returncode == 0
    assert left(client) == ""
    assert client.tree() == DEMO_TREE


@pytest.mark.parametrize("kind", ["503", "refuse", "garbage", "half"])
def test_a_service_that_is_down_leaves_the_text(client: Client, server: BundleServer, kind: str) -> None:
    server.fault("/", kind)
    server.serve(TEXT, DEMO)
    done = client.fetch(TEXT, *FALLBACK)
    assert done.returncode == 0
    assert left(client) == TEXT
    assert "failed:" in done.stderr
    assert set(os.listdir(client.target)) == {".lockstep", "requirements.txt"}


def test_every_other_failure_leaves_the_text(client: Client, server: BundleServer, tmp_path: Path) -> None:
    server.refuse(TEXT, 422, "invalid-request", "Not allowed", detail="requirements, line 3: -r is not allowed")
    assert client.fetch(TEXT, *FALLBACK).returncode == 0
    assert left(client) == TEXT
    server.refuse("a", 403, "forbidden", "Not for you")
    assert client.fetch("a", *FALLBACK).returncode == 0
    assert left(client) == "a"
    server.serve("b", DEMO)
    server.fault("/v1/blobs", "wrong-bytes")
    assert client.fetch("b", *FALLBACK, "--timeout", "30").returncode == 0
    assert left(client) == "b"
    server.serve("c", DEMO, unpacked_size=10**15)
    assert client.fetch("c", *FALLBACK).returncode == 0
    assert left(client) == "c"
    (tmp_path / "r.txt").write_bytes(b"demo # caf\xe9\n")
    assert client.run("-r", str(tmp_path / "r.txt"), *FALLBACK).returncode == 0
    assert (client.target / "requirements.txt").read_bytes() == b"demo # caf\xe9\n"


def test_the_service_hears_of_it_and_why(client: Client, server: BundleServer) -> None:
    workload = ("--namespace", "shop", "--workload", "orders")
    server.refuse(TEXT, 422, "build-required", "No wheel", detail="of demo")
    client.fetch(TEXT, *FALLBACK, *workload)
    told = {"reason": "refused", "detail": "No wheel: of demo", "namespace": "shop", "workload": "orders"}
    assert server.fallbacks == [told]
    server.refuse("a", 403, "forbidden", "Not for you")
    server.serve("b", DEMO, unpacked_size=10**15)
    server.serve("c", DEMO)
    server.fault("/v1/bundles", "503")
    for text in ("a", "b", "c"):
        client.fetch(text, *FALLBACK)
    assert [each["reason"] for each in server.fallbacks[1:]] == ["not-allowed", "cannot-write", "unavailable"]
    server.clear_faults()
    client.fetch("c", *FALLBACK)
    client.fetch("a")  # fails, and falls back to nothing
    assert len(server.fallbacks) == 4


@pytest.mark.parametrize("kind", ["hang", "refuse", "503", "garbage"])
def test_a_service_that_does_not_hear_of_it_is_no_harm(client: Client, server: BundleServer, kind: str) -> None:
    server.refuse(TEXT, 422, "build-required", "No wheel")
    server.fault("/v1/fallbacks", kind)
    done = client.fetch(TEXT, *FALLBACK)
    assert (done.returncode, left(client)) == (0, TEXT)
    assert "does not hear of it" in done.stderr


def test_last_words_are_left_where_there_is_room_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "termination-log"
    monkeypatch.setattr(fallback, "TERMINATION_MESSAGE", str(place))
    flags = ["--server", "http://127.0.0.1:9", "--target", str(tmp_path), "--requirement", "a"]
    options = parse(flags, {})
    fallback.tell(options, Unavailable("nobody is there"), Console(sys.stderr))
    assert not place.exists()
    place.write_text("older words, and longer ones than those that come after them")
    fallback.tell(options, Unavailable("nobody is there"), Console(sys.stderr))
    assert place.read_text() == "lockstep: fallback: unavailable: nobody is there"


def test_an_older_tree_does_not_shadow_what_is_installed_instead(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.fetch("demo\n", *FALLBACK)
    server.fault("/", "503")
    assert client.fetch("demo>1\n", *FALLBACK).returncode == 0
    assert left(client) == "demo>1\n"
    assert not os.path.lexists(client.target / "site-packages")
    assert not os.path.lexists(client.target / "bin")
    assert client.own() == {"lock"}


def test_a_bundle_in_place_serves_while_the_service_is_down(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    client.fetch("demo\n", *FALLBACK)
    server.fault("/", "503")
    assert client.fetch("demo\n", *FALLBACK).returncode == 0
    assert left(client) == ""
    assert client.tree() == DEMO_TREE


def test_a_service_that_is_back_is_used_again(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    server.fault("/", "503")
    client.fetch("demo\n", *FALLBACK)
    server.clear_faults()
    assert client.fetch("demo\n", *FALLBACK).returncode == 0
    assert left(client) == ""
    assert client.tree() == DEMO_TREE


def test_what_was_installed_instead_is_left_alone(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", DEMO)
    (client.target / "site-packages").mkdir(parents=True)
    (client.target / "site-packages/theirs.py").write_text("by pip")
    done = client.fetch("demo\n", *FALLBACK)
    assert done.returncode == 0
    assert left(client) == "demo\n"
    assert (client.target / "site-packages/theirs.py").read_text() == "by pip"


def test_a_target_that_cannot_be_written_is_73(client: Client, server: BundleServer) -> None:
    client.target.write_text("a file")
    assert client.fetch("demo\n", *FALLBACK).returncode == 73


def test_bad_usage_stays_64(client: Client) -> None:
    assert client.fetch("demo\n", *FALLBACK, "--python", "3.12").returncode == 64
    assert client.fetch("demo\n", *FALLBACK, "--server", "nowhere").returncode == 64
    assert not (client.target / "requirements.txt").exists()


def test_without_it_no_requirements_are_written(client: Client, server: BundleServer) -> None:
    server.serve("demo\n", make_bundle())
    assert client.fetch("demo\n").returncode == 0
    assert not (client.target / "requirements.txt").exists()


def test_what_nobody_foresaw_falls_back_as_well_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, object]:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(story, "target", broken)
    options = parse(
        ["--server", "http://x", "--target", str(tmp_path), "--requirement", "a", "--on-failure", "fallback"], {}
    )
    umask = os.umask(0o022)
    try:
        story.fetch(options, Console(sys.stderr))
    finally:
        os.umask(umask)
    assert (tmp_path / "requirements.txt").read_text() == "a\n"
    said = capsys.readouterr().err
    assert "ZeroDivisionError: unforeseen" in said
    assert "in broken" in said
