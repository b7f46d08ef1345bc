"""What this interpreter is (PEP 508 markers and its libc), and how much CPU it may use."""

from __future__ import annotations

import os
import sys

from resolver.client.errors import Refused

_THIS = "/proc/self/exe"  # names the running binary also where sys.executable is a wrapper, or empty
_PT_INTERP = 3
_LOADER_SECONDS = 5
_ORDINARY = "the ordinary build of the same version is served"
_HINT = "--python and --platform name the target without asking the interpreter"


def target() -> dict[str, object]:
    """The running interpreter, as `POST /v1/resolve` takes it.

    Raises:
        Refused: its libc cannot be told, or no wheel that the service picks would run on it.
    """
    # PEP 703: the free-threaded build has an ABI of its own, which no marker tells.
    if "t" in getattr(sys, "abiflags", ""):
        raise Refused("this interpreter is a free-threaded CPython, for which there are no bundles", (_ORDINARY,))
    return {"markers": markers(), "libc": libc()}


def markers() -> dict[str, str]:
    """The marker values of PEP 508, "Environment Markers", without the `platform` module, which is slow to import."""
    kernel = os.uname()
    version = _full_version(sys.version_info)
    name = sys.implementation.name
    return {
        "implementation_name": name,
        "implementation_version": _full_version(sys.implementation.version),
        "os_name": os.name,
        "platform_machine": _machine(kernel.machine),
        "platform_python_implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(name, name),
        "platform_release": kernel.release,
        "platform_system": kernel.sysname,
        "platform_version": kernel.version,
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": sys.platform,
    }


def _full_version(info: sys._version_info) -> str:
    """`format_full_version` of PEP 508."""
    release = f"{info.major}.{info.minor}.{info.micro}"
    return release if info.releaselevel == "final" else f"{release}{info.releaselevel[0]}{info.serial}"


def _machine(kernel: str) -> str:
    """The machine that this interpreter is built for: a 32-bit image runs on a 64-bit kernel, its wheels do not."""
    if sys.maxsize > 2**32:
        return kernel
    return {"x86_64": "i686", "aarch64": "armv8l"}.get(kernel, kernel)


def libc() -> str:
    """Family and version of the C library, such as `glibc 2.36` or `musl 1.2`.

    Raises:
        Refused: it is neither, or does not say.
    """
    try:
        known = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # a C library that is not glibc does not know the name
        known = None
    if known is not None:
        return ".".join(known.split(".")[:2])
    loader = elf_interpreter(_THIS)
    if loader is None or "musl" not in os.path.basename(loader):
        raise Refused("the C library of this interpreter is neither glibc nor musl", (_HINT,))
    return musl(loader)


def elf_interpreter(path: str) -> str | None:
    """The program interpreter that a 64-bit little-endian ELF file asks for (PT_INTERP), None where there is none."""
    import struct  # glibc needs none of it

    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return None
        file.seek(32)
        (table,) = struct.unpack("<Q", file.read(8))
        file.seek(54)
        size, count = struct.unpack("<HH", file.read(4))
        for number in range(count):
            file.seek(table + number * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == _PT_INTERP:
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    return None


def musl(loader: str) -> str:
    """`musl` and the version that its loader tells when it is run without a program to load (PEP 656).

    Raises:
        Refused: it told none.
    """
    import subprocess  # glibc needs none of it

    try:
        told = subprocess.run(
            [loader],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LOADER_SECONDS,
        ).stdout.decode("ascii", "replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{loader} does not tell its version: {error}", (_HINT,)) from error
    for line in told.splitlines():
        word, _, version = line.partition(" ")
        if word == "Version" and version[:1].isdigit():
            return "musl " + ".".join(version.split(".")[:2])
    raise Refused(f"{loader} does not tell its version", (_HINT,))


def granted_cpus() -> int:
    """How many CPUs this process may keep busy: its affinity, or its control group's quota where that is less."""
    available = len(os.sched_getaffinity(0))
    quota = _quota()
    return available if quota is None else max(1, min(available, -int(-quota // 1)))


def _quota() -> float | None:
    groups = "/sys/fs/cgroup"
    try:
        try:
            limit, period = _words(f"{groups}/cpu.max")
        except FileNotFoundError:  # the first version of control groups
            (limit,), (period,) = _words(f"{groups}/cpu/cpu.cfs_quota_us"), _words(f"{groups}/cpu/cpu.cfs_period_us")
        return float(limit) / float(period) if limit not in ("max", "-1") else None
    except (OSError, ValueError):  # no control groups, or none that say
        return None


def _words(path: str) -> list[str]:
    with open(path) as file:
        return file.read().split()
