"""Limits of a process in the sandbox, and of all that it starts: hard ones, which nobody can raise again."""

import os
import resource


def limit(memory: int, processes: int, disk: int, seconds: int) -> None:
    """`memory` (address space of each process) and `disk` (of each file) are in bytes, `seconds` of CPU of each."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, disk),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, 1024),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    os.umask(0o022)
