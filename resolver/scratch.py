"""A folder of this process's own for work under way, and an end to those of processes that are gone."""

import errno
import fcntl
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import StorageFull

_LOCK = ".in-use"
_MADE_WITHIN = 3600.0  # seconds


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


@contextmanager
def needing_room(what: str) -> Iterator[None]:
    """For work on plain files. Raises StorageFull where the operating system has no room left for them."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room left for {what}") from error
        raise


def _abandoned(folder: Path) -> bool:
    try:
        if folder.name.startswith("."):
            # Between its making and its lock, unless whoever made it was killed right then.
            return time.time() - folder.stat().st_mtime > _MADE_WITHIN
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
