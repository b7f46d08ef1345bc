"""The injected init container's program, as its container runs it: whatever fails, the Pod starts as before."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from resolver.client import bootstrap as program
from resolver.client.build import archive, bootstrap
from tests.support.bundle_server import BundleServer
from tests.unit.client.conftest import DEMO

TEXT = "demo\n-r other.txt\n"
CLIENT = archive()


class Init:
    """Runs the bootstrap against a server, into a target."""

    def __init__(self, server: BundleServer, folder: Path) -> None:
        self.server = server
        self.target = folder / "deps"
        self.target.mkdir()
        self.digest = hashlib.sha256(CLIENT).hexdigest()
        server.client = CLIENT

    def run(self, *arguments: str, seconds: int = 15, **environment: str) -> subprocess.CompletedProcess[str]:
        text = bootstrap().replace("DOWNLOAD_SECONDS = 15", f"DOWNLOAD_SECONDS = {seconds}")
        variables = {
            "PATH": os.environ["PATH"],
            "LOCKSTEP_SERVER": self.server.url,
            "LOCKSTEP_TARGET": str(self.target),
            "LOCKSTEP_ON_FAILURE": "fallback",
            "LOCKSTEP_TIMEOUT": "2",
            **environment,
        }
        return subprocess.run(
            [sys.executable, "-I", "-c", text, self.digest, *arguments],
            env=variables, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def inline(self, text: str = TEXT, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(*arguments, seconds=1, LOCKSTEP_REQUIREMENTS=text, **environment)

    @property
    def left(self) -> str:
        return (self.target / "requirements.txt").read_text()

    @property
    def in_place(self) -> bool:
        return (self.target / "site-packages" / "demo").is_dir()


@pytest.fixture
def init(server: BundleServer, tmp_path: Path) -> Init:
    server.serve(TEXT, DEMO)
    return Init(server, tmp_path)


def test_nothing_is_left_to_install(init: Init) -> None:
    done = init.inline()
    assert done.returncode == 0, done.stderr
    assert (init.left, init.in_place) == ("", True)
    assert not (init.target / "attempt").exists()


@pytest.mark.parametrize("path", ["/client/", "/v1/resolve", "/v1/blobs"])
@pytest.mark.parametrize("kind", ["503", "refuse", "garbage", "half", "wrong-bytes"])
def test_whatever_fails_leaves_the_text(init: Init, path: str, kind: str) -> None:
    init.server.fault(path, kind)
    done = init.inline()
    assert done.returncode == 0, done.stderr
    assert (init.left, init.in_place) == (TEXT, False)
    assert "failed:" in done.stderr


def test_nobody_listens(init: Init) -> None:
    done = init.inline(LOCKSTEP_SERVER="http://127.0.0.1:9")
    assert (done.returncode, init.left) == (0, TEXT)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"\r\n" * 9]
)
def test_something_else_answers(init: Init, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        done = init.inline(LOCKSTEP_SERVER=f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert (done.returncode, init.left) == (0, TEXT), done.stderr


def test_a_service_that_is_silent_is_waited_for_a_bounded_time(init: Init) -> None:
    init.server.fault("/client/", "hang")
    assert (init.inline().returncode, init.left) == (0, TEXT)


def test_what_is_refused_is_left_to_pip(init: Init) -> None:
    init.server.refuse("odd", 422, "build-required", "No wheel")
    assert (init.inline("odd").returncode, init.left) == (0, "odd")


def test_a_client_that_does_not_know_its_variables_is_no_harm(init: Init) -> None:
    done = init.inline(LOCKSTEP_COLOUR="green")
    assert (done.returncode, init.left) == (0, TEXT)
    assert "LOCKSTEP_COLOUR" in done.stderr


def test_another_client_than_the_webhook_named_is_not_run(init: Init) -> None:
    init.server.client = b"print('not checked')"
    done = init.inline()
    assert (done.returncode, init.left) == (0, TEXT)
    assert "not checked" not in done.stdout


def test_once_in_place_it_needs_no_service(init: Init) -> None:
    init.inline()
    init.server.requests.clear()
    init.server.fault("/", "503")
    assert init.inline().returncode == 0
    assert (init.left, init.in_place) == ("", True)
    assert init.server.requests == []


def test_a_private_index_is_pips_alone(init: Init, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\n")
    done = init.inline(TEXT, f"--pip-conf={tmp_path}/pip.conf")
    assert (done.returncode, init.left) == (0, TEXT)
    assert init.server.requests == ["/v1/fallbacks"]  # that it is so, and nothing that is in it
    # The Secret is optional: where there is none, its file is a folder, or is not there.
    (tmp_path / "pip.conf").unlink()
    assert init.inline(TEXT, f"--pip-conf={tmp_path}/pip.conf").returncode == 0
    assert (init.left, init.in_place) == ("", True)


def told(init: Init) -> list[tuple[str, str | None]]:
    return [(each["reason"], each.get("workload")) for each in init.server.fallbacks]


def test_the_service_hears_of_a_fallback_once(init: Init, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\n")
    init.inline(TEXT, f"--pip-conf={tmp_path}/pip.conf", LOCKSTEP_NAMESPACE="shop", LOCKSTEP_WORKLOAD="orders")
    assert init.server.fallbacks[-1] == {
        "reason": "private-index",
        "detail": "a pip.conf names an index of its own",
        "namespace": "shop",
        "workload": "orders",
    }
    (init.target / "attempt").touch()
    init.inline()
    init.server.client = b"another"
    init.inline()
    init.server.client = CLIENT
    init.server.refuse("odd", 422, "build-required", "No wheel")
    init.inline("odd")  # the client tells of this one, and its bootstrap has nothing to add
    init.inline(LOCKSTEP_COLOUR="green")
    assert told(init) == [
        *(("private-index", "orders"), ("killed", None), ("no-client", None), ("refused", None), ("failed", None))
    ]
    init.server.fallbacks.clear()
    init.inline()
    init.inline("odd", LOCKSTEP_ON_FAILURE="fail")
    assert told(init) == []


def test_a_token_is_shown_with_it(init: Init, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token\n")
    (init.target / "attempt").touch()
    init.inline(LOCKSTEP_TOKEN_FILE=str(tmp_path / "token"))
    assert init.server.authorizations == ["Bearer a-token"]


def test_nobody_waits_for_who_does_not_hear(init: Init) -> None:
    (init.target / "attempt").touch()
    init.server.fault("/v1/fallbacks", "hang")
    done = init.inline()
    assert (done.returncode, init.left) == (0, TEXT)


def test_last_words_are_left_where_there_is_room_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: BundleServer
) -> None:
    monkeypatch.setattr(program, "TERMINATION_MESSAGE", tmp_path / "termination-log")
    monkeypatch.setenv("LOCKSTEP_SERVER", server.url)
    program.tell("killed", "the attempt before this one was killed")
    assert not (tmp_path / "termination-log").exists()
    (tmp_path / "termination-log").touch()
    program.tell("killed", "the attempt before this one was killed")
    words = (tmp_path / "termination-log").read_text()
    assert words == "lockstep: fallback: killed: the attempt before this one was killed"


def test_an_attempt_that_was_killed_is_not_made_again_and_again(init: Init) -> None:
    (init.target / "attempt").touch()
    done = init.inline()
    assert (done.returncode, init.left) == (0, TEXT)
    assert "killed" in done.stderr
    assert init.inline().returncode == 0
    assert init.left == ""


def test_who_cannot_do_without_it_hears_of_it(init: Init) -> None:
    init.server.fault("/", "503")
    assert init.inline(LOCKSTEP_ON_FAILURE="fail").returncode == 69
    assert not (init.target / "requirements.txt").exists()


def test_a_text_that_is_not_there_is_no_harm(init: Init, tmp_path: Path) -> None:
    done = init.run(f"--requirements={tmp_path}/none.txt")
    assert (done.returncode, init.left) == (0, "")


def cloned(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "requirements.txt").write_text(TEXT)
    return folder / "requirements.txt"


def test_a_cloned_file_is_moved_aside_once_it_is_not_needed(init: Init, tmp_path: Path) -> None:
    file = cloned(tmp_path)
    arguments = [f"--requirements={file}", "--move-aside"]
    for _ in range(2):  # the second: the same Pod, its sandbox made anew
        done = init.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert init.in_place
        assert file.read_text() == ""
        assert (file.parent / ".requirements.lockstep").read_text() == TEXT


@pytest.mark.parametrize("path", ["/client/", "/v1/resolve", "/v1/blobs"])
def test_a_cloned_file_stays_where_the_bundle_is_not_to_be_had(init: Init, tmp_path: Path, path: str) -> None:
    file = cloned(tmp_path)
    init.server.fault(path, "503")
    done = init.run(f"--requirements={file}", "--move-aside", seconds=1)
    assert done.returncode == 0, done.stderr
    assert file.read_text() == TEXT
    assert os.listdir(file.parent) == ["requirements.txt"]


def test_a_repository_without_requirements(init: Init, tmp_path: Path) -> None:
    done = init.run(f"--requirements={tmp_path}/requirements.txt", "--move-aside")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "requirements.txt").exists()


def test_it_is_no_part_of_the_client() -> None:
    """It stands in the Pod's spec: bytes of the client that no run needs would be fetched by each."""
    assert b"client/bootstrap.py" not in CLIENT
    assert program.__doc__ is not None
    assert program.__doc__ in bootstrap()
