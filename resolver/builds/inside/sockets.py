"""No sockets but those within the machine, for this process and all that it will start: a filter of system calls
(seccomp(2)), which any process with no new privileges may put on itself, and nobody can take off.

Landlock knows TCP alone, and that from Linux 6.7 on; this knows any protocol, and older kernels have it too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_SET_SECCOMP, _FILTER = 22, 2  # prctl(2)
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k], jeq, jge, ret
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_CALL, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data
_IO_URING_SETUP = 425  # which makes sockets without that call
_X32 = 0x40000000  # the same calls by other numbers
_UNIX = 1
# AUDIT_ARCH_…, and the number of socket(2).
_KNOWN = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid() -> bool:
    """Let there be no network. The process has no new privileges already. False where the kernel does not do it, or the
    machine is none that we know."""
    known = _KNOWN.get(os.uname().machine)
    if known is None:
        return False
    machine, socket = known
    # Each: operation, how many to leave out if it holds and if not, what it is about.
    steps = (
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 0, 7, machine),  # a call of another machine: 32-bit code
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 4, 0, _IO_URING_SETUP),
        (_EQUAL, 0, 2, socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 1, _UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EACCES),
    )
    program = _Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), *map(ctypes.c_ulong, (0, 0)))
    return done == 0
