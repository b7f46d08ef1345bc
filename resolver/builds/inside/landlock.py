"""Shuts this process, and all that it will start, in: Landlock, as far as the kernel has it (landlock(7)), and no new
privileges. What is not named can be neither read nor written, there is no TCP, and no process outside can be traced or
signalled. Nobody can undo it.

Its ABI grew with Linux: 1 (5.13) files; 2 renames between folders; 3 truncation; 4 (6.7) TCP; 5 ioctls of devices;
6 (6.12) signals and abstract sockets.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # the same on every machine
_VERSION, _BENEATH = 1, 1
_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_RIGHTS = (0, 13, 14, 15, 15, 16)
"""By ABI, how many rights over files there are; later ones as the last."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_TCP = 0b11
_OUTSIDE = 0b11  # signals, abstract sockets

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/proc")
# What is forbidden is not what is missing: programs that do without the one fall over the other.
_SETTINGS = tuple(
    f"/etc/{name}"
    for name in (
        *("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "ld-musl-aarch64.path"),
        *("os-release", "lsb-release", "debian_version", "alpine-release", "redhat-release", "system-release"),
        *("passwd", "group", "nsswitch.conf", "localtime", "timezone", "mime.types", "gitconfig"),
    )
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def system() -> tuple[str, ...]:
    """What programs need to read of any machine, the interpreter included. In /proc, what is of other processes and
    not everybody's is denied by the kernel."""
    return (*_SYSTEM, *_SETTINGS, os.path.realpath(sys.base_prefix))


def abi() -> int:
    """Which ABI the kernel has; 0: none, or none that we may use."""
    return max(0, _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)))


def confine(readable: Iterable[str], writable: str) -> int:
    """Let only these paths be read (and run), and what is in the folder `writable` be changed. Returns the ABI.

    Raises:
        OSError: the kernel has Landlock, and does not do it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    version = abi()
    if not version:
        return 0
    every = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    rules = struct.pack("=QQQ", every, _TCP if version >= 4 else 0, _OUTSIDE if version >= 6 else 0)
    ruleset = _checked(_call(_CREATE, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0)))
    try:
        for path in readable:
            _allow(ruleset, path, every & (_EXECUTE | _READ_FILE | _READ_FOLDER))
        for path in _DEVICES:
            _allow(ruleset, path, every & (_READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL))
        _allow(ruleset, writable, every)
        _checked(_call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)
        _checked(_call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_BENEATH), rule, ctypes.c_uint32(0)))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    return result


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
