"""The builder's program, from the zipapp, under whichever interpreters are here: what it asks, does and leaves."""

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from resolver.builds.remote import pack
from resolver.builds.running import Limits
from resolver.client.environment import libc
from tests.support.sdists import a_sdist, a_tar
from tests.unit.client.conftest import Finished, interpreter

LIMITS = Limits(seconds=30)


class Tasks:
    """A service that hands these out, one after the other: a parcel, or a status; then the last, for ever."""

    def __init__(self, *given: bytes | int) -> None:
        self.given = [*given]
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.answers: list[tuple[str, bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.tokens.add(self.headers["Authorization"])
                given = outer.given.pop(0) if len(outer.given) > 1 else outer.given[0]
                self.send_response(given if isinstance(given, int) else 200)
                content = b"" if isinstance(given, int) else given
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(content)

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.answers.append((self.path, content))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not to the test's output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Tasks":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("the-token-of-the-task\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The builder's, in which nothing is left."""
    path = tmp_path / "build"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


def parcel(tmp_path: Path, name: str = "demo", **options: str) -> bytes:
    """A build of such an sdist."""
    filename, content = a_sdist(name, **options)  # type: ignore[arg-type]  # texts are some of its options
    task = tmp_path / "task"
    task.mkdir()
    (task / filename).write_bytes(content)
    about = {"sdist": filename, "wheels": [], "backend": "backend", "backend_path": ["."], "final": True}
    (task / "task.json").write_text(json.dumps({**about, "compilers": True, "limits": LIMITS.inner}))
    pack(tmp_path / "parcel", 7, "build", LIMITS, task)
    return (tmp_path / "parcel").read_bytes()


def build(pyz: Path, url: str, *arguments: str, python: str = sys.executable, **environment: str) -> Finished:
    argv = [python, "-I", str(pyz), "builder", "--once", "--server", url, *arguments]
    return subprocess.run(
        argv, env={"PATH": os.defpath, **environment}, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_it_builds_and_hands_over(pyz: Path, tmp_path: Path, token: Path, folder: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    code = "print('hello'); os.mkdir('closed'); open('closed/file', 'w'); os.chmod('closed', 0)"
    with Tasks(503, parcel(tmp_path, code=code), 204) as service:
        ran = build(pyz, service.url, "--token-file", str(token), "--folder", str(folder), python=python)
    assert ran.returncode == 0, ran.stderr
    assert service.tokens == {"Bearer the-token-of-the-task"}
    asked = parse_qs(urlsplit(service.asked[0]).query)
    assert asked["python"][0].startswith(version + ".")
    assert (asked["machine"], asked["libc"]) == ([os.uname().machine], [libc()])
    [(path, content)] = service.answers
    head, answer, wheel = content.split(b"\n", 2)
    assert path == "/v1/builder/answer?step=7"
    told = json.loads(head)
    assert (told["code"], told["stopped"]) == (0, None)
    assert told["log"].endswith("hello\n")
    assert json.loads(answer) == {"wheel": "demo-1.0-py3-none-any.whl"}
    assert "demo.py" in zipfile.ZipFile(BytesIO(wheel)).namelist()


def test_it_ends_its_build_when_it_is_told_to_end(pyz: Path, tmp_path: Path, token: Path, folder: Path) -> None:
    mark = tmp_path / "mark"
    sleeps = f"sleep 1000000; : {mark}"
    code = f"import subprocess; subprocess.run(['sh', '-c', {sleeps!r}], start_new_session=True)"
    with Tasks(parcel(tmp_path, code=code), 204) as service:
        argv = [sys.executable, "-I", str(pyz), "builder", "--once", "--server", service.url]
        process = subprocess.Popen([*argv, "--token-file", str(token), "--folder", str(folder)])
        deadline = time.monotonic() + 60
        while not running(str(mark)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 130
    assert not running(str(mark))


def running(words: str) -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if words.encode() in (path / "cmdline").read_bytes():
                found.append(path)
        except OSError:  # it has just ended
            continue
    return found


def test_a_service_that_has_nothing_for_it_is_asked_for_a_while(pyz: Path, token: Path, folder: Path) -> None:
    with Tasks(503) as service:
        ran = build(pyz, service.url, "--token-file", str(token), "--folder", str(folder), "--timeout", "1.5")
    assert ran.returncode == 69
    assert "there was no task within 1.5 s" in ran.stderr
    assert 1 < len(service.asked) < 4


@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 69), (422, 65)])
def test_a_refusal_ends_it(pyz: Path, token: Path, folder: Path, status: int, code: int) -> None:
    with Tasks(status) as service:
        ran = build(pyz, service.url, "--token-file", str(token), "--folder", str(folder))
    assert ran.returncode == code
    assert len(service.asked) == 1
    assert "the-token" not in ran.stderr


def test_a_service_that_is_gone_ends_it(pyz: Path, token: Path, folder: Path) -> None:
    """After less than its own time: nobody else knows of the task."""
    script = (
        f"import sys; sys.path.insert(0, {str(pyz)!r}); from resolver.client import builder; builder._GIVES_UP = 1.0; "
        "from resolver.client.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = ["--server", "http://127.0.0.1:9", "--token-file", str(token), "--folder", str(folder)]
    argv = [sys.executable, "-I", "-c", script, "builder", "--once", *flags]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 69, ran.stderr


@pytest.mark.parametrize("name", ["../a.json", "/tmp/a.json", "step.json", None], ids=["dots", "root", "empty", "none"])
def test_a_task_that_is_none_ends_it(pyz: Path, token: Path, folder: Path, name: str | None) -> None:
    content = a_tar({name: b""}) if name else b"rubbish"
    with Tasks(gzip.decompress(content) if name else content) as service:
        ran = build(pyz, service.url, "--token-file", str(token), "--folder", str(folder))
    assert ran.returncode == 69
    assert "the task" in ran.stderr
    assert not (folder.parent / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--server"),
        (("--server", "http://127.0.0.1:9", "--token-file", "f"), "--once"),
        (("--once", "--server", "http://127.0.0.1:9"), "--token-file"),
        (("--once", "--server", "ftp://x", "--token-file", "f"), "--server"),
        (("--once", "--nonsense"), "--server"),
    ],
)
def test_what_makes_no_sense_is_refused(pyz: Path, arguments: tuple[str, ...], words: str) -> None:
    argv = [sys.executable, "-I", str(pyz), "builder", *arguments]
    ran = subprocess.run(argv, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 64
    assert words in ran.stderr


def test_where_the_service_is_may_stand_in_variables(pyz: Path, token: Path, folder: Path) -> None:
    argv = [sys.executable, "-I", str(pyz), "builder", "--once", "--folder", str(folder)]
    with Tasks(204) as service:
        environment = {"LOCKSTEP_SERVER": service.url, "LOCKSTEP_TOKEN_FILE": str(token)}
        ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
