"""What is left of the limits of a benchmark that was interrupted."""

import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.benchmarks import limits

_SECONDS = 30.0


def test_an_interrupted_run_leaves_neither_processes_nor_its_cgroup() -> None:
    with ExitStack() as stack:
        try:
            prefix = stack.enter_context(limits.cpu(500))
        except limits.Absent as why:
            pytest.skip(str(why))
        inside = Path(prefix[-1])
        # As a service under measurement: a process, and one more that it started, which the run knows nothing of.
        process = stack.enter_context(subprocess.Popen([*prefix, "sh", "-c", "sleep 600 & sleep 600"]))
        deadline = time.monotonic() + _SECONDS
        while len(inside.read_text().split()) < 3:
            assert time.monotonic() < deadline, "the processes do not start"
            time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt), stack.pop_all():
            raise KeyboardInterrupt
    assert process.wait(_SECONDS) == -signal.SIGKILL
    assert not inside.parent.exists()
