"""The machine made smaller for a process and its children: a CPU limit as a Pod's, a link of so many bits a second.

Each gives words to put before an argv, or raises Absent where this machine does not let us.
"""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PERIOD = 100_000  # microseconds, the kubelet's own
_ROOT = Path("/sys/fs/cgroup")
_SECONDS_TO_END = 10.0
_ENTER = 'echo $$ > "$0" && exec "$@"'
# Loopback in a network namespace of its own. The bucket holds a packet of loopback's own size and more.
_LINK = 'ip link set lo up && tc qdisc add dev lo root tbf rate $0 burst 256kb latency 100ms && exec "$@"'


class Absent(Exception):
    """This machine cannot be limited so; the text says what is missing."""


@contextmanager
def cpu(millis: int) -> Iterator[list[str]]:
    """A cgroup that may use so many thousandths of a CPU (cgroup v2 `cpu.max`, or v1's quota, where that has it)."""
    quota = millis * _PERIOD // 1000
    v2, v1 = _ROOT / f"lockstep-bench-{os.getpid()}", _ROOT / "cpu" / f"lockstep-bench-{os.getpid()}"
    if (_ROOT / "cgroup.controllers").exists():
        group, settings = v2, {"cpu.max": f"{quota} {_PERIOD}"}
    else:
        group, settings = v1, {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(quota)}
    try:
        group.mkdir()
    except OSError as error:
        raise Absent(f"no cgroup can be made here ({error.strerror})") from error
    try:
        try:
            for name, value in settings.items():
                (group / name).write_text(value)
        except OSError as error:
            raise Absent(f"the cgroup takes no CPU limit ({error.strerror})") from error
        yield ["sh", "-c", _ENTER, str(group / "cgroup.procs")]
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove the cgroup, and end what is still in it first: a run that is interrupted leaves its children behind."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while True:
        for process in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.02)


def link(rate: str) -> list[str]:
    """A network of its own, whose loopback carries `rate` (as `tc` writes it: `1gbit`), both ways together."""
    missing = [program for program in ("unshare", "ip", "tc", "sh") if shutil.which(program) is None]
    if missing:
        raise Absent(f"no {', '.join(missing)} here")
    prefix = ["unshare", "--net", "sh", "-c", _LINK, rate]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Absent(f"no network of its own can be limited here ({tried.stderr.strip()})")
    return prefix
