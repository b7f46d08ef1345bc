"""A real PgBouncer in front of a PostgreSQL: a server connection for the length of a transaction, no longer."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import pytest

from tests.support.postgres import NOBODY, PostgresServer, as_nobody, free_port


class TransactionPooler:
    """PgBouncer with `pool_mode = transaction` and three connections to each database. Skips the test without one."""

    def __init__(self, server: PostgresServer) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            pytest.skip("no transaction pooler here: pgbouncer is not on PATH")
        self._program = program
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="lockstep-pgbouncer-")
        self._port = free_port()

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={self._server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self._port}
unix_socket_dir =
auth_type = trust
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
logfile = {folder / "log"}
""")
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        command: list[str | Path] = [*as_nobody(), self._program, "-q", folder / "pgbouncer.ini"]
        self._process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return self
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def __exit__(self, _type: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        self._folder.cleanup()

    def url(self, database: str) -> str:
        return self._server.url(database, self._port)
