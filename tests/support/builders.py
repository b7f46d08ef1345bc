"""Builders as processes of this machine, in the place of Pods: the real program, from the real zipapp, each in a folder
and (where the tests run as root) of a user of its own. `python -m tests.support.builders serve …` is the service with
these."""

import asyncio
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver import from_source
from resolver.__main__ import main
from resolver.builds.inside import landlock
from resolver.client.build import archive
from resolver.domain.errors import BuilderUnavailable
from resolver.domain.ports import BuilderLauncher, Launched
from resolver.settings import Settings
from tests.support.interpreters import THIS
from tests.support.postgres import free_port
from tests.support.service import Service

_URL, _PLACES, _PROGRAM, _LOG = "BUILDERS_URL", "BUILDERS_PLACES", "BUILDERS_PROGRAM", "BUILDERS_LOG"
AWAY = "away"
"""A program that is none: the API server does not answer."""
_USERS = 61184
_ENDS_WITHIN = 15.0


class _Started:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ended(self) -> str:
        code = await self._process.wait()
        return f"exit code {code}"


class SubprocessLauncher:
    """Starts `program --server URL --token-file F --folder DIR` for these places."""

    def __init__(self, program: Sequence[str], url: str, places: Sequence[str]) -> None:
        self._program = program
        self._url = url
        self._places = places

    async def missing(self, place: str) -> str | None:
        return None if place in self._places else f"no builder image for {place}: set `builders`"

    @asynccontextmanager
    async def launch(self, place: str, token: str, seconds: float) -> AsyncIterator[Launched]:
        if self._program == [AWAY]:
            raise BuilderUnavailable("the API server does not answer", may_pass=True)
        if not self._program:
            raise BuilderUnavailable("the cluster has no room for another builder")
        log_file = Path(os.environ[_LOG])
        with tempfile.TemporaryDirectory(prefix="builder-", dir=log_file.parent, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "token").write_text(token)
            (folder / "token").chmod(0o400)
            (folder / "build").mkdir()
            user = None
            if os.geteuid() == 0:
                user = _USERS + secrets.randbelow(4000)
                for path in (folder, folder / "token", folder / "build"):
                    os.chown(path, user, user)
            argv = [*self._program, "--server", self._url, "--token-file", str(folder / "token")]
            argv += ["--folder", str(folder / "build"), "--timeout", str(seconds)]
            with log_file.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *_as(user),
                    *argv,
                    env={"PATH": os.defpath},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            try:
                yield _Started(process)
            finally:
                if process.returncode is None:
                    process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), _ENDS_WITHIN)
                except TimeoutError:
                    process.kill()
                    await process.wait()
                if user is not None:  # what a Pod's end does to all that is in it
                    await asyncio.to_thread(
                        subprocess.run, [*_as(user), sys.executable, "-c", "import os; os.kill(-1, 9)"], check=False
                    )


def builder_service(
    data: Path,
    index_url: str,
    *,
    places: Sequence[str],
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] | None = None,
) -> Service:
    """The service with builders for these places; `program` is what is started instead of the real one."""
    if program is None:
        pyz = data.with_name(f"{data.name}.pyz")
        pyz.write_bytes(archive())
        pyz.chmod(0o755)
        assert PYTHON is not None, "needs_builders was not asked"
        program = [PYTHON, "-I", str(pyz), "builder", "--once"]
    reachable(data)
    port = free_port()
    told = {
        _URL: f"http://127.0.0.1:{port}",
        _PLACES: " ".join(places),
        _PROGRAM: shlex.join(program),
        _LOG: str(data.with_name(f"{data.name}.builders.log")),
    }
    return Service(
        data,
        index_url=index_url,
        flags=["--port", str(port), *flags],
        environment={**told, **(environment or {})},
        program="tests.support.builders",
    )


def builders(service: Service) -> list[int]:
    """Whatever the service started and is still there, of builders."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if f"\0{service.url}\0".encode() in command:
            found.append(int(path.name))
    return found


def reachable(path: Path) -> None:
    """Let other users pass the folders on the way to it, as far as they are temporary ones."""
    for parent in path.parents:
        if parent != Path(tempfile.gettempdir()) and parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o711)


def _as(user: int | None) -> list[str]:
    if user is None:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    change = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return [setpriv, *change, "--no-new-privs"]


def _python() -> str | None:
    """This Python, as another user can run it: the one that runs the tests may be somewhere in root's folders."""
    for python in (Path(sys.executable).resolve(), Path(f"/usr/bin/python{THIS}")):
        user = _USERS if os.geteuid() == 0 else None
        argv = [*_as(user), str(python), "-I", "-c", "import os, sys, venv; os.stat(sys.executable); print(sys.prefix)"]
        if python.exists() and subprocess.run(argv, capture_output=True, check=False).returncode == 0:
            return str(python)
    return None


def _launcher(settings: Settings) -> BuilderLauncher | None:
    return SubprocessLauncher(shlex.split(os.environ[_PROGRAM]), os.environ[_URL], os.environ[_PLACES].split())


PYTHON = _python()
needs_builders = pytest.mark.skipif(PYTHON is None, reason=f"no Python {THIS} here that other users can run")
needs_landlock = pytest.mark.skipif(
    landlock.abi() < 4, reason=f"no Landlock here that knows TCP (ABI {landlock.abi()})"
)

if __name__ == "__main__":
    replaced: Any = from_source
    replaced.launcher = _launcher
    sys.exit(main())
