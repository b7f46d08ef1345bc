"""The processes that this one started, those that left their parents included: how much they hold, and their end.

Reads /proc. Nothing of ours leaves: who outlives its parent comes to us (PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

from resolver.client.errors import Unavailable

_SET_DUMPABLE, _SET_CHILD_SUBREAPER = 4, 36
_ENDS_WITHIN = 20.0  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


def keep_together() -> None:
    """Whoever is left behind by its parent is ours from now on. And nobody of our own user looks into this process: its
    memory, its variables, what it has open."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_SET_CHILD_SUBREAPER, 1), (_SET_DUMPABLE, 0)):
        if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
            raise Unavailable(f"this machine does not keep processes together: {os.strerror(ctypes.get_errno())}")


def resident() -> int:
    """Bytes that they have in memory; what they share is counted for each."""
    return sum(_resident(pid) for pid, _ in _family())


def end() -> None:
    """End all of them.

    Raises:
        Unavailable: one of them does not end.
    """
    deadline = time.monotonic() + _ENDS_WITHIN
    while True:
        family = _family()
        for pid, _ in family:
            _kill(pid)
        # What has ended counts as a process until somebody asks for it, and we do so last: whoever forks without end
        # finds no room for another.
        if all(state == "Z" for _, state in family) and _reaped():
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"{len(family)} processes of the build do not end")
        time.sleep(0.005)


def _reaped() -> bool:
    """Take note of those that have ended; whether none is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended
        return


def _family() -> list[tuple[int, str]]:
    """The processes that descend from this one, and the state of each (proc_pid_stat(5))."""
    children: dict[int, list[tuple[int, str]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program, in brackets, may hold anything.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):  # it has just ended
            continue
        children.setdefault(int(parent), []).append((int(name), state.decode("ascii")))
    found: list[tuple[int, str]] = []
    waiting = [os.getpid()]
    while waiting:
        ours = children.get(waiting.pop(), [])
        found += ours
        waiting += [pid for pid, _ in ours]
    return found


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):  # it has just ended
        return 0
