"""Runs pip, and keeps it from starting any other program: `python -I -B wheels_only_pip.py PIP_RUNNER ARGUMENT…`.

`--only-binary` governs what pip takes from an index, not what a wheel's METADATA asks for by URL (`evil @ https://…`,
`git+…`): those pip would clone and build, and so run code. Everything that builds or clones is another process, which
an audit hook (PEP 578) refuses, for as long as this one lives. Standard library only: the target's interpreter runs it.
"""

import runpy
import sys

REFUSAL = "locking starts no other program"

_STARTS_A_PROGRAM = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn"}
)


def refuse_programs(event: str, arguments: object) -> None:
    """The audit hook."""
    if event in _STARTS_A_PROGRAM:
        raise PermissionError(REFUSAL)


if __name__ == "__main__":
    sys.addaudithook(refuse_programs)
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
