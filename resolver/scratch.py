"""A folder of this process's own for work under way, and an end to those of processes that are gone."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".in-use"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end. Folders there that no living process holds are removed first:
    a process that was killed left them. Blocks."""
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    folder = parent / uuid.uuid4().hex
    # Made under another name first, so that no sweep sees it before it is locked.
    making = parent / f".{folder.name}"
    making.mkdir()
    with (making / _LOCK).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        making.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
