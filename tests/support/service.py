"""The real service, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60


class Service:
    """`lockstep serve` on a free port of 127.0.0.1; its log is kept in `<data>.log`, across restarts."""

    def __init__(
        self,
        data: Path,
        *,
        index_url: str | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
        program: str = "resolver",
    ) -> None:
        """`within` is a command that runs the one that it is given; `program` the module that is run."""
        self.data = data
        self._within = within
        self._program = program
        self._flags = [*flags]
        self._environment = {**os.environ, **(environment or {})}
        if index_url is not None:
            self._environment["LOCKSTEP_INDEX_URL"] = index_url
        self._log = data.with_name(data.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert self._process is None
        seen = self._log.stat().st_size if self._log.exists() else 0
        argv = [*self._within, sys.executable, "-m", self._program, "serve", "--port", "0"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "--data-dir", str(self.data), "--log-format", "json", *self._flags],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the service ended with {self._process.returncode}:\n{self.log()[seen:]}")
            for event in self.events(seen):
                if event.get("event") == "service.listening":
                    self.url = f"http://{event['host']}:{event['port']}"
                    return
            time.sleep(0.02)
        raise AssertionError(f"the service does not listen:\n{self.log()[seen:]}")

    def kill(self) -> None:
        """SIGKILL, as a node's failure would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self, seconds: float = 40) -> int | None:
        """SIGTERM, and wait; returns the exit code (None: it was not running)."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 40) -> int:
        """For its end, which something else brings about; returns the exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def log(self) -> str:
        """All that it ever wrote."""
        return self._log.read_text() if self._log.exists() else ""

    def events(self, start: int = 0) -> list[dict[str, Any]]:
        """Its log, event by event."""
        return [json.loads(line) for line in self.log()[start:].splitlines() if line.startswith("{")]

    def metrics(self) -> str:
        """What /metrics says."""
        with self.client() as client:
            return client.get("/metrics").text

    def client(self, timeout: float = 120) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=timeout)

    def resolve(self, requirements: str | list[str], **fields: Any) -> httpx.Response:
        """POST /v1/resolve, followed to its end; the target defaults to CPython 3.12 on glibc 2.28, x86_64."""
        body = {
            "requirements": requirements,
            "target": {"python": "3.12", "platform": "manylinux_2_28_x86_64"},
            "wait": 100,
            **fields,
        }
        with self.client() as client:
            answer = client.post("/v1/resolve", json=body)
            while answer.status_code == 202:
                time.sleep(0.2)
                answer = client.get(answer.headers["Location"])
            return answer
