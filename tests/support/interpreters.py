"""The Python interpreters of this machine that really run."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 20
_QUESTION = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def interpreter(version: str) -> Path | None:
    """The first interpreter of this minor version (`3.12`): the one that runs the tests, those on PATH, those that a
    version manager keeps in the home folder. None where there is none."""
    return next((path for path in _candidates(version) if _is_python(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    if version == THIS:
        yield Path(sys.executable)
    for folder in os.get_exec_path():
        # Each folder by itself: the first on PATH may be a version manager's stub, which does not run.
        if folder and (found := shutil.which(f"python{version}", path=folder)):
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    yield from sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"))
    yield from sorted(uv.glob(f"cpython-{version}*/bin/python{version}"))


def _is_python(path: Path, version: str) -> bool:
    try:
        done = subprocess.run(
            [path, "-I", "-B", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.split() == ["cpython", version]
