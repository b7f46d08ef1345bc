"""Who outlives the service: processes whose parent is gone come to this one, and so can be counted."""

import ctypes
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


class Survivors(AssertionError):
    """Processes that nobody looks after any more: pid → argv."""


class Orphans:
    """Processes that became this one's children since the start of the context, beside those that were there."""

    def __init__(self) -> None:
        self._known = _children()

    def left(self) -> Mapping[int, str]:
        """Those that still run, pid → argv; the others are reaped."""
        running = {}
        for pid in _children() - self._known:
            if _status(pid)[0] == "Z":
                os.waitpid(pid, os.WNOHANG)
            elif argv := _argv(pid):
                running[pid] = argv
        return running

    def assert_none(self, within: float) -> float:
        """How many seconds it took until none was left. Raises Survivors after `within`."""
        started = time.monotonic()
        while left := self.left():
            if time.monotonic() - started > within:
                raise Survivors(dict(left))
            time.sleep(0.02)
        return time.monotonic() - started


@contextmanager
def adopted() -> Iterator[Orphans]:
    """Within the context, descendants that lose their parent become children of this process. Whoever starts processes
    of its own within has to have waited for them before it asks who is left."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield Orphans()
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


def descendants(pid: int) -> dict[int, str]:
    """The processes below this one, pid → argv."""
    below = {pid}
    parents = _parents()
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: _argv(child) for child in below - {pid}}


def _children() -> set[int]:
    return {child for child, parent in _parents().items() if parent == os.getpid()}


def _parents() -> dict[int, int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return {pid: _status(pid)[1] for pid in pids}


def _status(pid: int) -> tuple[str, int]:
    """Its state and its parent; "" and 0 where it ended meanwhile."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return state, int(parent)


def _argv(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
