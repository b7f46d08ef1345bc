"""A program that becomes another one, which the kernel then ends as soon as the process that started it is gone.

`python -I -S leash.py PARENT PROGRAM [ARGUMENT …]`, PARENT being the process that starts it. An engine leads a session
of its own and does not look at its standard input: a service that is killed would leave it behind, asking an index
until its own patience ends. Standard library only, as little of it as can be: it stands before every run.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); kept across exec
_SIGKILL = 9  # signal(7), here and on every Linux: the module that has its name takes as long to load as the other two


def main(parent: int, argv: list[str]) -> None:
    """Never returns. Ends with 126 where the program cannot be started."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(os.EX_UNAVAILABLE)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - this program is nothing but a way to exec
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(126)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
