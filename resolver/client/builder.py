"""`lockstep builder --once`: takes one task from the service, step by step, and ends when there is none left.

    task.tar, given/    a step, as it came: what it is about, and the program that does it
    root/               the step's own folder, new for each
    answer              what it answers

All of these are in one folder, at the same path for each build: what compilers write may hold it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tarfile
import time
from urllib.parse import urlencode

from resolver.client import family
from resolver.client.environment import target
from resolver.client.errors import BadUsage, CannotWrite, Unavailable
from resolver.client.retries import Passing, Patience, persist
from resolver.client.step import Ran, run
from resolver.client.transport import Server, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from resolver.client.console import Console

FOLDER = "/build"
DEFAULT_TIMEOUT = 3600.0
_GIVES_UP = 60.0  # seconds: a service that is gone for so long does not come back, and nobody else knows of the task
_IDLE = 120.0
_BUFFER = 1 << 20


class _Later(Exception):
    """The service has no step yet."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadUsage(message, ("lockstep builder --help lists the flags",))


def main(arguments: Sequence[str], environ: Mapping[str, str], console: Console) -> int:
    """Run `builder …` (without the command's name); returns the exit code.

    Raises:
        FetchError: it cannot go on.
    """
    options = _options(arguments, environ)
    # Told to end, it ends its build first. As the first process of a container it would not hear of it otherwise.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    builder = Builder(Server(options.server, options.token_file, options.ca_file), options.folder, options.timeout)
    builder.work(console)
    return 0


class Builder:
    """Works for this service, in this folder."""

    def __init__(self, server: Server, folder: str, timeout: float) -> None:
        self._server = server
        self._folder = os.path.abspath(folder)
        self._timeout = timeout
        self._end = time.monotonic() + timeout

    def work(self, console: Console) -> None:
        """Do one task. Raises FetchError."""
        asking = f"/v1/builder/task?{urlencode(_about())}"
        family.keep_together()
        console.say(f"asking {self._server.base} for a task")
        try:
            while self._take(asking, console):
                step = self._unpacked()
                started = time.monotonic()
                ran = run(step, self._path("given"), self._path("root"), self._path("answer"))
                how = ran.stopped or f"ended with {ran.code}"
                console.say(f"step {step['number']}, {step['step']}: {how}, {time.monotonic() - started:.1f} s")
                self._tell(step["number"], ran, console)
        except OSError as error:
            raise CannotWrite(f"{error.filename or self._folder}: {error.strerror or error}") from error
        finally:
            self._clear()
        console.say("done: there is nothing more to do")

    def _take(self, asking: str, console: Console) -> bool:
        """The next step, in the file task.tar; False where there is none any more."""
        self._clear()
        while True:
            patience = Patience(_GIVES_UP)
            try:
                return persist(lambda: self._asked(asking, patience), patience, console.say)  # noqa: B023 - called now
            except _Later as later:
                if time.monotonic() + later.seconds > self._end:
                    raise Unavailable(f"there was no task within {self._timeout:g} s (--timeout)") from None
                time.sleep(later.seconds)

    def _asked(self, asking: str, patience: Patience) -> bool:
        buffer = memoryview(bytearray(_BUFFER))
        try:
            with Session(self._server, patience) as session, session.exchange("GET", asking, idle=_IDLE) as answer:
                if answer.status == 204:
                    return False
                with open(self._path("task.tar"), "wb") as file:
                    while count := answer.read_into(buffer):
                        file.write(buffer[:count])
                return True
        except Passing as failure:
            if failure.retry_after:
                raise _Later(failure.retry_after) from None
            raise

    def _unpacked(self) -> dict[str, Any]:
        """What step.json says; the rest is in the folder `given`."""
        try:
            with tarfile.open(self._path("task.tar"), "r:") as tar:
                for member in tar:
                    self._lay_out(tar, member)
            os.unlink(self._path("task.tar"))
            with open(self._path("given", "step.json"), encoding="utf-8") as file:
                step: dict[str, Any] = json.load(file)
        except (tarfile.TarError, ValueError) as error:
            raise Unavailable(f"the task cannot be read: {error}") from error
        return step

    def _lay_out(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        source = tar.extractfile(member) if member.isreg() else None
        parts = member.name.split("/")
        if source is None or any(part in ("", ".", "..") for part in parts):
            raise Unavailable(f"the task holds {member.name!r}, which is no file in it")
        path = self._path("given", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            shutil.copyfileobj(source, file, _BUFFER)

    def _tell(self, number: int, ran: Ran, console: Console) -> None:
        """Answer: a line of JSON about the run, and what the step itself answered."""
        head = {"code": ran.code, "stopped": ran.stopped, "log": ran.log.decode("utf-8", "replace")}
        with open(self._path("answer"), "rb") as file:
            content = json.dumps(head).encode() + b"\n" + (b"" if ran.stopped else file.read())
        patience = Patience(2 * _GIVES_UP)

        def put() -> None:
            with (
                Session(self._server, patience) as session,
                session.exchange(
                    "PUT",
                    f"/v1/builder/answer?step={number}",
                    content,
                    idle=_IDLE,
                    media_type="application/octet-stream",
                ),
            ):
                return

        persist(put, patience, console.say)

    def _clear(self) -> None:
        """Nothing of a step is left to the next one."""
        for name in ("given", "root"):
            if os.path.isdir(self._path(name)):
                _remove(self._path(name))
        for name in ("task.tar", "answer"):
            if os.path.lexists(self._path(name)):
                os.unlink(self._path(name))

    def _path(self, *names: str) -> str:
        return os.path.join(self._folder, *names)


def _about() -> dict[str, str]:
    """What this interpreter is: whoever gives the task judges whether it is for us."""
    known = target()
    markers = known["markers"]
    assert isinstance(markers, dict)  # noqa: S101 - as `target` has them
    return {
        "python": markers["python_full_version"],
        "machine": markers["platform_machine"],
        "libc": str(known["libc"]),
    }


def _remove(folder: str) -> None:
    """The folder, of which a build may have left parts that cannot be emptied as they are."""
    for path, names, _ in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(folder)


def _options(arguments: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    parser = _Parser(
        prog="lockstep builder",
        description="Take one task of building a source distribution from the service, do it, and end.",
        epilog="--server, --token-file and --ca-file can be set as LOCKSTEP_SERVER and so on. Exit codes: 0 done, "
        "64 bad usage, 65 not for this interpreter, 69 the service is gone, 73 cannot write, 77 no such task.",
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", required=True, help="one task, and no other after it")
    for name, metavar, text in (
        ("server", "URL", "where the service is"),
        ("token_file", "F", "a file with the token of the task"),
        ("ca_file", "F", "certificates to trust"),
    ):
        value = environ.get(f"LOCKSTEP_{name.upper()}") or None
        needed = value is None and name != "ca_file"
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, default=value, required=needed, help=text)
    parser.add_argument("--folder", metavar="DIR", default=FOLDER, help=f"where it works (default: {FOLDER})")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=DEFAULT_TIMEOUT, help="seconds to wait for a step, all together"
    )
    return parser.parse_args(arguments)
