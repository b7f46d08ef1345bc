"""Runs a program that nobody trusts: bubblewrap around it, on a host that lets it.

    /usr, the interpreter       as they are here, read-only
    /lockstep, /pip             the steps (builds/inside) and the service's own pip, read-only
    /task                       what this run is about, read-only
    /build                      the run's own folder, in memory, of a bounded size, gone at its end
    network, other processes    none: namespaces of its own
    user                        another one, with no capability and none to be had, where the service is root

What it prints is bounded, and so are its time, and its processes' memory, number and files (builds/inside/limits.py).
What they have in memory together is looked at while they run.
"""

import asyncio
import os
import secrets
import shutil
import signal
import sys
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pip

from resolver.builds import inside
from resolver.builds.inside.hook import PIP
from resolver.builds.memory import resident
from resolver.domain.redaction import redact

_OURS = "/lockstep"
_START = f"import runpy, sys; sys.path.insert(0, {_OURS!r}); runpy.run_module({inside.__name__!r}, run_name='__main__')"
_TASK = "/task"
_FIRST_USER, _USERS = 61184, 4000  # not a person's, nor a service's: systemd keeps these for such as this
_CHUNK = 64 * 1024
_KEPT_LOG = 16 * 1024
_LOOK_EVERY = 0.25
_PROBE_SECONDS = 20.0

# Whatever a build may look at for a time, a language, an order or a place is the same in each of them.
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/build",
    "TMPDIR": "/build/tmp",
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


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended. `stopped`: why it was ended, None where it ended by itself. `log`: the end of what it printed,
    redacted. Its answer is in the file that was given."""

    code: int
    stopped: str | None
    log: str


class Bubblewrap:
    """The sandbox of a host. `search` is where its programs are looked for, as in PATH."""

    def __init__(self, limits: Limits, search: str = os.defpath) -> None:
        self.limits = limits
        self._bwrap = shutil.which("bwrap", path=search)
        self._setpriv = shutil.which("setpriv", path=search)
        self._probing: asyncio.Task[str | None] | None = None

    async def missing(self) -> str | None:
        """Why nothing can be run here; None where it can. Found out once."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        return await asyncio.shield(self._probing)

    async def run(self, step: str, task: Path, answer: Path) -> Ran:
        """Run a step of builds/inside on the folder `task`, in which `task.json` says what it is about; its standard
        output goes to the file `answer`. When this returns, raises or is cancelled, all of it is gone."""
        argv = [_python(), "-I", "-B", "-c", _START, step, f"{_TASK}/task.json"]
        binds = _bind(Path(inside.__file__).parent, f"{_OURS}/{inside.__name__.replace('.', '/')}")
        binds += _bind(Path(pip.__file__).parent, PIP)
        return await self._run([*binds, *_bind(task, _TASK)], argv, answer)

    def inner_limits(self) -> dict[str, int]:
        """Those that a run keeps by itself, from its first moment on."""
        limits = asdict(self.limits)
        return {name: int(limits[name]) for name in ("memory", "processes", "disk", "seconds")}

    async def _probe(self) -> str | None:
        if not sys.platform.startswith("linux") or self._bwrap is None:
            return "bubblewrap (bwrap) is not installed"
        if os.geteuid() == 0 and self._setpriv is None:
            return "setpriv (util-linux) is not installed, and the service runs as root"
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                ran = await self._run([], [_python(), "-I", "-c", "import tomllib, venv"], Path(os.devnull))
        except TimeoutError:
            return "bubblewrap does not come to an end here"
        if ran.code == 0:
            return None
        return f"bubblewrap cannot make its namespaces here ({' '.join(ran.log.split())[-200:] or ran.code})"

    async def _run(self, binds: list[str], argv: list[str], answer: Path) -> Ran:
        assert self._bwrap is not None  # noqa: S101 - `missing` was asked
        run = _Run(self.limits)
        return await run.to_its_end([self._bwrap, *self._arguments(binds), "--", *argv], answer)

    def _arguments(self, binds: list[str]) -> list[str]:
        root = os.geteuid() == 0
        arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        arguments += ["--die-with-parent", "--new-session", "--hostname", "build", "--clearenv"]
        # As root, a user namespace would leave us root's files to read: there, the user is changed for real.
        arguments += [] if root else ["--unshare-user"]
        for name, value in _ENVIRONMENT.items():
            arguments += ["--setenv", name, value]
        arguments += [*_system(), *binds]
        arguments += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        arguments += ["--perms", "0777", "--size", str(self.limits.disk), "--tmpfs", "/build"]
        arguments += ["--perms", "1777", "--dir", "/build/tmp", "--chdir", "/build", "--remount-ro", "/"]
        arguments += ["--cap-drop", "ALL"]
        if not root:
            return arguments
        user = str(_FIRST_USER + secrets.randbelow(_USERS))
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            arguments += ["--cap-add", capability]
        arguments += ["--", str(self._setpriv), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*arguments, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


class _Run:
    """One program, its pipes and its bounds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stopped: str | None = None
        self._over = asyncio.Event()

    async def to_its_end(self, argv: list[str], answer: Path) -> Ran:
        """Run it. Raises OSError where it cannot be started, or its answer cannot be written."""
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
            cwd="/",
            env={},
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
        kept: deque[bytes] = deque(maxlen=1 + 2 * _KEPT_LOG // _CHUNK)
        size = 0
        # Read on after the end: a pipe that nobody drains keeps its process from being reaped.
        while chunk := await stream.read(_CHUNK):
            size += len(chunk)
            kept.append(chunk)
            if size > self._limits.log:
                self._stop(f"it printed more than {self._limits.log} bytes")
        return log_of(b"".join(kept))


def log_of(printed: bytes) -> str:
    """The end of what was printed, fit to be shown: no control characters, and redacted before it is cut."""
    text = "".join(c for c in printed.decode("utf-8", "replace") if c.isprintable() or c in "\n\t")
    return redact(text)[-_KEPT_LOG:].strip()


def _python() -> str:
    """The interpreter behind that of the service, which may be one of a virtual environment."""
    return str(Path(sys.executable).resolve())


def _system() -> list[str]:
    """What programs need of the host: /usr, the links into it, the loader's cache, the interpreter."""
    arguments = _bind(Path("/usr"), "/usr")
    for name in ("bin", "lib", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += _bind(path, str(path))
    for path in (Path("/etc/ld.so.cache"), Path("/etc/alternatives")):
        arguments += _bind(path, str(path)) if path.exists() else []
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        arguments += _bind(prefix, str(prefix))
    return arguments


def _bind(path: Path, place: str) -> list[str]:
    """The path, read-only, at that place. Folders on the way there are made so that others may pass."""
    parents: list[str] = []
    for parent in reversed(Path(place).parents[:-1]):
        parents += ["--perms", "0755", "--dir", str(parent)]
    return [*parents, "--ro-bind", str(path), place]
