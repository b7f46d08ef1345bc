"""The program as a whole: its commands, how it ends, what it loads."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resolver.api import problems, schemas
from resolver.cli import remote
from tests.unit.cli.answers import NEW, lock_detail, lock_item
from tests.unit.cli.conftest import Run
from tests.unit.cli.service import Asked, Said, Service, of_model, of_problem

COMMANDS = [
    *("serve", "fetch", "builder", "lock", "locks", "show", "diff", "why", "pins", "refresh", "hold"),
    *("warm", "publish", "inject", "observed", "doctor", "gc", "fsck", "migrate"),
]
PROGRAM = [sys.executable, "-c", "import sys; from resolver.cli import main; sys.exit(main(None, serve=lambda _: 7))"]


def program(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    return subprocess.run(
        [*PROGRAM, *arguments], env={**environment, **variables}, capture_output=True, text=True, timeout=60
    )


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert (ran.code, ran.err) == (0, "")
    assert re.findall(r"^    ([a-z]+)  ", ran.out, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"lockstep {command}" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["locks", "--nonsense"],
        ["locks", "--limit", "0"],
        ["locks", "--limit", "many"],
        ["locks", "--time", "3"],  # abbreviated
        ["show"],
        ["why", NEW],
        ["why", NEW, "../pins"],
        ["diff", NEW],
        ["hold", "--namespace", "shop", "--workload", "checkout"],
        ["refresh", "--namespace", "..", "--workload", "checkout"],
        ["lock"],
        ["lock", "-r", "/nonexistent/requirements.txt"],
        ["locks", "--timeout", "0"],
        ["locks", "--timeout", "nan"],
        ["locks", "--server", "packages.example.com"],
        ["locks", "--server", "https://me:hunter2@packages.example.com"],
        ["locks", "--ca-file", "/nonexistent/ca.pem"],
        ["show", "not-a-digest"],
        ["fetch", "--nonsense"],
    ],
)
def test_bad_usage_is_64_and_says_why(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 64
    assert ran.out == ""
    assert "lockstep" in ran.err
    assert "hunter2" not in ran.err


def test_the_version(run: Run) -> None:
    ran = run("--version")
    assert ran.code == 0
    assert ran.out.startswith("lockstep ")


def test_a_program_gets_json_and_an_exit_code(service: Service) -> None:
    page = schemas.LockPage(items=[lock_item(NEW, ["requests>=2"])], cursor=None)
    service.says("GET", "/v1/locks", of_model(page))
    ran = program("locks", "--json", LOCKSTEP_SERVER=service.url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert schemas.LockPage.model_validate(json.loads(ran.stdout)) == page


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (problems.INVALID_REQUEST, 65),
        (problems.NO_SOLUTION, 65),
        (problems.TOO_LARGE, 65),
        (problems.NOT_FOUND, 66),
        (problems.BUSY, 69),
        (problems.TIMEOUT, 69),
        (problems.INTERNAL, 69),
        (problems.INDEX_UNAVAILABLE, 69),
        (problems.DIGEST_MISMATCH, 76),
        (problems.UNAUTHENTICATED, 77),
        (problems.FORBIDDEN, 77),
    ],
)
def test_a_problem_is_told_whole_and_becomes_an_exit_code(
    ask: Run, service: Service, kind: problems.Kind, code: int
) -> None:
    service.says("GET", "/v1/locks", of_problem(kind, "because of this\nand that", hints=["try this", "or\nthat"]))
    ran = ask("locks")
    assert ran.code == code
    assert ran.out == ""
    lines = [line.strip() for line in ran.err.splitlines()]
    assert lines[0] == f"lockstep: {kind.title}: because of this"
    assert lines[1:6] == ["and that", "try this", "or", "that", "request_id: the-request-id"]
    assert ("this may pass: try again" in lines) == kind.retryable
    assert len(service.asked) == 1


def test_exit_codes_reach_the_shell(service: Service) -> None:
    assert program("show", NEW, "--server", service.url).returncode == 66
    assert program("nonsense").returncode == 64
    assert program("serve", "--host", "0.0.0.0").returncode == 64
    assert program("serve", "--port", "0").returncode == 7


def test_a_service_that_is_not_there(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        ran = run("locks", "--server", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert ran.code == 69
    assert "refused" in ran.err
    assert "LOCKSTEP_SERVER" in ran.err


def test_a_service_that_never_answers(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ran = run("locks", "--server", f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
    assert ran.code == 69
    assert "not done within 0.5 s" in ran.err or "timed out" in ran.err


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b'{"items": 3, "cursor": null}', b"\xff"])
def test_an_answer_of_another_kind(ask: Run, service: Service, content: bytes) -> None:
    service.says("GET", "/v1/locks", Said(content))
    ran = ask("locks")
    assert ran.code == 69
    assert "the service answered" in ran.err or "no JSON object" in ran.err
    assert "Traceback" not in ran.err


def test_half_an_answer(ask: Run, service: Service) -> None:
    service.says("GET", "/v1/locks", Said(b'{"items": [', headers={"Content-Length": "1000"}))
    assert ask("locks").code == 69


def test_a_redirect_is_not_followed_with_a_token(ask: Run, service: Service, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hunter2\n")
    service.says("GET", "/v1/locks", Said(b"", 302, {"Location": "/elsewhere"}))
    ran = ask("locks", "--token-file", str(token))
    assert ran.code == 69
    assert service.paths == ["GET /v1/locks"]
    assert "hunter2" not in ran.err


def test_the_token_is_shown_and_read_anew_for_each_request(
    ask: Run, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")

    def renewed(_: Asked) -> Said:
        token.write_text("second\n")
        return of_model(schemas.LockPage(items=[lock_item(NEW, [])], cursor="more"))

    last = of_model(schemas.LockPage(items=[], cursor=None))
    service.says("GET", "/v1/locks", renewed, last)
    monkeypatch.setenv("LOCKSTEP_TOKEN_FILE", str(token))
    assert ask("locks").code == 0
    assert [asked.headers["Authorization"] for asked in service.asked] == ["Bearer first", "Bearer second"]


def test_a_token_that_cannot_be_read(ask: Run, service: Service, tmp_path: Path) -> None:
    ran = ask("locks", "--token-file", str(tmp_path / "absent"))
    assert ran.code == 77
    assert service.asked == []


def test_a_prefix_of_the_servers_path_is_kept(run: Run, service: Service) -> None:
    service.says("GET", "/lockstep/v1/locks", of_model(schemas.LockPage(items=[], cursor=None)))
    assert run("locks", "--server", f"{service.url}/lockstep/").code == 0


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(service: Service) -> None:
    items = [lock_item(f"sha256:{number:064x}", ["requests"]) for number in range(500)]
    service.says("GET", "/v1/locks", of_model(schemas.LockPage(items=items, cursor=None)))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            [*PROGRAM, "locks", "--json", "--limit", "500", "--server", service.url],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_fetch_loads_nothing_that_a_pod_would_wait_for() -> None:
    script = (
        "import sys; from resolver.cli import main; code = main(['fetch', '--nonsense'], serve=lambda _: 0); "
        "print(code, *sorted({'httpx', 'rich', 'pydantic', 'packaging', 'yaml', 'asyncio'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "64\n", ran.stderr


def test_a_fetch_beside_the_services_settings_minds_its_own(tmp_path: Path) -> None:
    """As in the service's image, whose variables say where its data is and where it listens."""
    settings = {"LOCKSTEP_DATA_DIR": "/var/lib/lockstep", "LOCKSTEP_LISTEN": "0.0.0.0:8080", "LOCKSTEP_CONFIG": "/c"}
    flags = (
        "fetch",
        "--server",
        "http://127.0.0.1:9",
        "--target",
        str(tmp_path),
        "--requirement",
        "a",
        "--timeout",
        "1",
    )
    done = program(*flags, **settings)
    assert done.returncode == 69, done.stderr
    done = program(*flags, **settings, LOCKSTEP_TARGETT="x")
    assert done.returncode == 64
    assert "LOCKSTEP_TARGETT" in done.stderr
    assert "LOCKSTEP_DATA_DIR" not in done.stderr


def test_on_a_narrow_terminal_nothing_is_left_out(service: Service) -> None:
    service.says("GET", f"/v1/locks/{NEW}", of_model(lock_detail()))
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            ran = subprocess.run(
                [*PROGRAM, "show", NEW, "--server", service.url],
                env={**os.environ, "COLUMNS": "60", "TERM": "xterm"},
                stdout=theirs,
                stderr=subprocess.PIPE,
                timeout=60,
            )
        finally:
            os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends, on Linux
            while chunk := terminal.read(4096):
                shown += chunk
    assert (ran.returncode, ran.stderr) == (0, b"")
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert max(len(line) for line in text.splitlines()) == 60
    assert f"lock{NEW}created" in "".join(text.split())
    assert "…" not in text


def test_an_interrupt_ends_it_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen([*PROGRAM, "locks", "--server", url], stderr=subprocess.PIPE) as running:
            try:
                accepted, _ = silent.accept()
                with accepted:
                    running.send_signal(signal.SIGINT)
                    _, told = running.communicate(timeout=60)
            finally:
                running.kill()
    assert (running.returncode, told) == (130, b"")


def test_an_answer_without_end_is_given_up(ask: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_LARGEST_ANSWER", 1000)
    service.says("GET", "/v1/locks", Said(b" " * 1001))
    ran = ask("locks")
    assert ran.code == 69
    assert "more than 1000 bytes" in ran.err
