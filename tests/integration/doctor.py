"""`lockstep doctor` on settings that are sound but for what a test changes: fixtures, and what its findings say."""

import os
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resolver import keeping
from resolver.doctor import examine
from resolver.doctor.findings import Finding
from resolver.settings import load
from tests.integration.conftest import publish
from tests.support.index import PackageIndex

PROJECT = "doctored"


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        publish(index, PROJECT, "1.0")
        yield index


@pytest.fixture(autouse=True)
def few_interpreters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one that runs the tests: to look for more takes its time."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python{}.{}".format(*sys.version_info[:2])).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")


class Doctor:
    """Looks with these settings, which are sound but for what a test changes."""

    def __init__(self, data: Path, index: PackageIndex) -> None:
        self.data = data
        self.settings: dict[str, Any] = {"data_dir": data, "index_url": index.url}

    def __call__(self, *, ca_bundle: Path | None = None, project: str = PROJECT, **changes: Any) -> list[Finding]:
        return examine(load({**self.settings, **changes}, None), project, ca_bundle)


@pytest.fixture
def doctor(tmp_path: Path, index: PackageIndex) -> Iterator[Doctor]:
    doctor = Doctor(tmp_path / "data", index)
    keeping.migrate(load(doctor.settings, None))
    yield doctor
    index.clear_faults()


def wrong(findings: list[Finding], check: str) -> Finding:
    """What is wrong: this alone."""
    (found,) = [finding for finding in findings if finding.state == "wrong"]
    assert found.check == check, found
    assert found.way_out
    return found


def notes(findings: list[Finding], check: str) -> list[str]:
    return [finding.told for finding in findings if (finding.check, finding.state) == (check, "note")]


@contextmanager
def dated_server(seconds: float = 0.0, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """Answers 404 to everything, by a clock that is wrong by so many seconds; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if "/v2/" not in self.path else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + seconds, usegmt=True)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
