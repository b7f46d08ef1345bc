"""Runs a step of a build (builds/inside) to its end, and within its bounds: time, memory, what it prints and answers.

What stands around it is a sandbox's own: see sandbox.py, plain.py, remote.py.
"""

import asyncio
import os
import platform
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from resolver.builds import inside
from resolver.builds.memory import resident
from resolver.domain.redaction import redact

STEPS = inside.__name__
THIS_PYTHON = f"CPython {platform.python_version()}"
_CHUNK = 64 * 1024
_KEPT_LOG = 16 * 1024
_LOOK_EVERY = 0.25

# Whatever a step may look at for a time, a language, an order or a place is the same in each of them.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "SOURCE_DATE_EPOCH": "315532800",  # 1980-01-01, the first time that a zip can have
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take: `seconds` of time; bytes in `memory`, and of address space of each process; `processes`;
    bytes of its folder (`disk`), of what it prints (`log`) and of its answer (`answer`)."""

    seconds: float = 300.0
    memory: int = 2 << 30
    processes: int = 128
    disk: int = 1 << 30
    log: int = 4 << 20
    answer: int = 256 << 20

    @property
    def inner(self) -> dict[str, int]:
        """Those that a run keeps by itself, from its first moment on (inside/limits.py)."""
        return {name: int(asdict(self)[name]) for name in ("memory", "processes", "disk", "seconds")}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended. `stopped`: why it was ended, None where it ended by itself. `log`: the end of what it printed,
    redacted. Its answer is in the file that was given."""

    code: int
    stopped: str | None
    log: str


class Sandbox(Protocol):
    """Where steps of builds run, one after the other, each in a folder of its own."""

    @property
    def limits(self) -> Limits:
        """What each of them may take."""
        ...

    @property
    def about(self) -> str:
        """The interpreter there, in words, such as `CPython 3.12.7, musl 1.2`; known once a step was run."""
        ...

    async def run(self, step: str, task: Path, answer: Path) -> Ran:
        """Run a step of builds/inside on the folder `task`, in which `task.json` says what it is about; its answer goes
        to the file `answer`. When this returns, raises or is cancelled, all of it is gone."""
        ...


class Run:
    """One program, its pipes and its bounds."""

    def __init__(self, limits: Limits, environment: Mapping[str, str], folder: str = "/") -> None:
        self._limits = limits
        self._environment = environment
        self._folder = folder
        self._stopped: str | None = None
        self._over = asyncio.Event()

    async def to_its_end(self, argv: list[str], answer: Path) -> Ran:
        """Run it; its standard output goes to the file `answer`. When this returns, raises or is cancelled, it and the
        processes of its group are gone. Raises OSError where it cannot be started, or its answer cannot be written."""
        life = asyncio.ensure_future(self._live(argv, answer))
        try:
            async with asyncio.timeout(self._limits.seconds):
                # Shielded, the spawn too: asyncio loses a process whose spawn is cancelled halfway.
                return await asyncio.shield(life)
        except TimeoutError:
            self._stop(f"it was not done within {self._limits.seconds:g} s")
            return await life
        finally:
            self._over.set()
            await asyncio.wait({life})

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why
        self._over.set()

    async def _live(self, argv: list[str], answer: Path) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - asked for as pipes above
        assert process.stderr is not None  # noqa: S101
        ended = asyncio.ensure_future(
            asyncio.gather(self._answer(process.stdout, answer), self._log(process.stderr), process.wait())
        )
        watching = asyncio.ensure_future(self._watch(process.pid))
        over = asyncio.ensure_future(self._over.wait())
        waiting: set[asyncio.Future[Any]] = {ended, over}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        watching.cancel()
        if not ended.done():
            # Its init dies with it, and with that all that is in its namespace.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        _, log, code = await ended
        return Ran(code, self._stopped, log)

    async def _watch(self, pid: int) -> None:
        while await asyncio.to_thread(resident, pid) <= self._limits.memory:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK_EVERY)
        self._stop(f"its processes had more than {self._limits.memory} bytes in memory")

    async def _answer(self, stream: asyncio.StreamReader, answer: Path) -> None:
        size = 0
        with await asyncio.to_thread(answer.open, "wb") as file:
            while chunk := await stream.read(_CHUNK):
                size += len(chunk)
                if size > self._limits.answer:
                    self._stop(f"its answer is over {self._limits.answer} bytes")
                else:
                    await asyncio.to_thread(file.write, chunk)

    async def _log(self, stream: asyncio.StreamReader) -> str:
        kept, size = b"", 0
        # Read on after the end: a pipe that nobody drains keeps its process from being reaped.
        while chunk := await stream.read(_CHUNK):
            size += len(chunk)
            kept = (kept + chunk)[-2 * _KEPT_LOG :]
            if size > self._limits.log:
                self._stop(f"it printed more than {self._limits.log} bytes")
        return log_of(kept)


def log_of(printed: bytes) -> str:
    """The end of what was printed, fit to be shown: no control characters, and redacted before it is cut."""
    text = "".join(c for c in printed.decode("utf-8", "replace") if c.isprintable() or c in "\n\t")
    return redact(text)[-_KEPT_LOG:].strip()


def start(library: str) -> str:
    """The program, for `python -c`, that runs a step; the package of the steps is in its place in that folder."""
    return f"import runpy, sys; sys.path.insert(0, {library!r}); runpy.run_module({STEPS!r}, run_name='__main__')"


def python() -> str:
    """The interpreter behind that of the service, which may be one of a virtual environment."""
    return str(Path(sys.executable).resolve())
