"""What a Pod would save, estimated: pip's work beside a fetch's, from the size of what both put in place.

Measured with pip on sets of 5 to 616 MB unpacked: an install takes a Pod about 1 CPU-second and 40 ms a MB, a fetch
0.1 s and 3 ms a MB. Sets of many small files cost pip more, wheels that are nearly all data less: half or twice as much
is as likely. That imports are compiled at every start where the tree is read-only is not counted.
"""

from dataclasses import dataclass

_MB = 1e6
_PIP = (1.0, 0.040)  # CPU-seconds, and CPU-seconds for each MB
_FETCH = (0.1, 0.003)


@dataclass(frozen=True, slots=True)
class Saved:
    """CPU-seconds that one start saves, and seconds of its time at the CPU limit that it has (without one: at a whole
    CPU). Estimates, both."""

    cpu_seconds: float
    seconds: float


def saved(unpacked_size: int, cpu_limit: float | None) -> Saved:
    """For a bundle of so many bytes, unpacked, in a container that may use so many CPUs."""
    megabytes = unpacked_size / _MB
    cpu = (_PIP[0] - _FETCH[0]) + (_PIP[1] - _FETCH[1]) * megabytes
    # pip works on one CPU at a time.
    return Saved(round(cpu, 1), round(cpu / min(cpu_limit or 1.0, 1.0), 1))
