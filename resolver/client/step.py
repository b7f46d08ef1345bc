"""One step of a build, in a process of its own and with nothing of ours: run to its end, within its bounds.

What the step is, and what it shuts itself in with, came with it: see resolver/builds/inside, which the service sends.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

from resolver.client import family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Any

_LOOK_EVERY = 0.25  # seconds
_CHUNK = 64 * 1024
_KEPT_LOG = 32 * 1024


class Ran:
    """How it ended: its exit code (negative: the signal), why it was `stopped`, the end of what it printed."""

    def __init__(self, code: int, stopped: str | None, log: bytes) -> None:
        self.code = code
        self.stopped = stopped
        self.log = log


def run(step: Mapping[str, Any], given: str, root: str, answer: str) -> Ran:
    """Do the step of which `step` tells, with what is in the folder `given`, in the empty folder `root`; what it
    answers goes to the file `answer`. When this returns, none of its processes is left.

    Raises:
        OSError: it cannot be started.
        Unavailable: it cannot be ended.
    """
    library = os.path.join(given, "lockstep")
    os.makedirs(os.path.join(root, "tmp"))
    start = f"import runpy, sys; sys.path.insert(0, {library!r}); "
    start += f"runpy.run_module({step['module']!r}, run_name='__main__')"
    argv = [os.path.realpath(sys.executable), "-I", "-B", "-c", start, str(step["step"])]
    argv += [os.path.join(given, "task", "task.json"), root, os.path.join(library, "pip"), "--confine"]
    environment = {**step["environment"], "HOME": root, "TMPDIR": os.path.join(root, "tmp")}
    with open(answer, "wb") as file:
        process = subprocess.Popen(
            argv,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    printed = _Printed(process.stderr)
    deadline = time.monotonic() + step["seconds"]
    stopped = None
    try:
        while process.poll() is None and stopped is None:
            printed.look(_LOOK_EVERY)
            if printed.size > step["log"]:
                stopped = f"it printed more than {step['log']} bytes"
            elif time.monotonic() > deadline:
                stopped = f"it was not done within {step['seconds']:g} s"
            elif os.path.getsize(answer) > step["answer"]:
                stopped = f"its answer is over {step['answer']} bytes"
            elif family.resident() > step["memory"]:
                stopped = f"its processes had more than {step['memory']} bytes in memory"
        code = process.poll()
    finally:
        family.end()
    process.returncode = code if code is not None else -9  # it was asked for with all the others
    printed.drain()
    return Ran(process.returncode, stopped, printed.end)


class _Printed:
    """What it prints, as far as it is kept."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None  # noqa: S101 - asked for as a pipe
        self._stream = stream
        self._open = True
        self.size = 0
        self.end = b""

    def look(self, seconds: float) -> None:
        """Take what there is; wait so long for it."""
        if not self._open:
            time.sleep(seconds)
        elif select.select([self._stream], [], [], seconds)[0]:
            chunk = os.read(self._stream.fileno(), _CHUNK)
            self._open = bool(chunk)
            self.size += len(chunk)
            self.end = (self.end + chunk)[-_KEPT_LOG:]

    def drain(self) -> None:
        """Take what is left in the pipe; nobody writes to it any more."""
        while self._open:
            self.look(0)
        self._stream.close()
