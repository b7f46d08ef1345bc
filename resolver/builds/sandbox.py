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
import sys
from pathlib import Path

import pip

from resolver.builds import inside
from resolver.builds.running import ENVIRONMENT, THIS_PYTHON, Limits, Ran, Run, python, start

_OURS, _PIP, _TASK, _ROOT = "/lockstep", "/pip/pip", "/task", "/build"
_TEMPORARY = "/build/tmp"
_FIRST_USER, _USERS = 61184, 4000  # not a person's, nor a service's: systemd keeps these for such as this
_PROBE_SECONDS = 20.0


class Bubblewrap:
    """The sandbox of a host. `search` is where its programs are looked for, as in PATH."""

    def __init__(self, limits: Limits, search: str = os.defpath) -> None:
        self.limits = limits
        self.about = THIS_PYTHON
        self._bwrap = shutil.which("bwrap", path=search)
        self._setpriv = shutil.which("setpriv", path=search)
        self._probing: asyncio.Task[str | None] | None = None

    async def missing(self) -> str | None:
        """Why nothing can be run here; None where it can. Found out once."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        return await asyncio.shield(self._probing)

    async def run(self, step: str, task: Path, answer: Path) -> Ran:
        """See Sandbox."""
        argv = [python(), "-I", "-B", "-c", start(_OURS), step, f"{_TASK}/task.json", _ROOT, _PIP]
        binds = _bind(Path(inside.__file__).parent, f"{_OURS}/{inside.__name__.replace('.', '/')}")
        binds += _bind(Path(pip.__file__).parent, _PIP)
        return await self._run([*binds, *_bind(task, _TASK)], argv, answer)

    async def _probe(self) -> str | None:
        if not sys.platform.startswith("linux") or self._bwrap is None:
            return "bubblewrap (bwrap) is not installed"
        if os.geteuid() == 0 and self._setpriv is None:
            return "setpriv (util-linux) is not installed, and the service runs as root"
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                ran = await self._run([], [python(), "-I", "-c", "import tomllib, venv"], Path(os.devnull))
        except TimeoutError:
            return "bubblewrap does not come to an end here"
        if ran.code == 0:
            return None
        return f"bubblewrap cannot make its namespaces here ({' '.join(ran.log.split())[-200:] or ran.code})"

    async def _run(self, binds: list[str], argv: list[str], answer: Path) -> Ran:
        assert self._bwrap is not None  # noqa: S101 - `missing` was asked
        run = Run(self.limits, {})
        return await run.to_its_end([self._bwrap, *self._arguments(binds), "--", *argv], answer)

    def _arguments(self, binds: list[str]) -> list[str]:
        root = os.geteuid() == 0
        arguments = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        arguments += ["--die-with-parent", "--new-session", "--hostname", "build", "--clearenv"]
        # As root, a user namespace would leave us root's files to read: there, the user is changed for real.
        arguments += [] if root else ["--unshare-user"]
        for name, value in {**ENVIRONMENT, "HOME": _ROOT, "TMPDIR": _TEMPORARY}.items():
            arguments += ["--setenv", name, value]
        arguments += [*_system(), *binds]
        arguments += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        arguments += ["--perms", "0777", "--size", str(self.limits.disk), "--tmpfs", _ROOT]
        arguments += ["--perms", "1777", "--dir", _TEMPORARY, "--chdir", _ROOT, "--remount-ro", "/"]
        arguments += ["--cap-drop", "ALL"]
        if not root:
            return arguments
        user = str(_FIRST_USER + secrets.randbelow(_USERS))
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            arguments += ["--cap-add", capability]
        arguments += ["--", str(self._setpriv), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*arguments, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


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
