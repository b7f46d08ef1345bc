"""Files on their way into a store, each locked by who writes it, so that a crashed writer's can be told and swept."""

import asyncio
import fcntl
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedIOBase

from storage.blobs.files import failures, opened

ABANDONED_AFTER = 3600.0
"""Seconds without a write after which a staged file is given up, whatever its lock says."""


class Staging:
    """A folder of files that are not whole yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def file(self) -> AsyncIterator[tuple[Path, AsyncBufferedIOBase]]:
        """A new file to write and then to rename; removed at the end where it is still here.

        Raises: as `failures` has them.
        """
        path = self._folder / uuid.uuid4().hex
        try:
            async with opened(_writer(path)) as file:
                yield path, file
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, path))

    @contextmanager
    def file_of(self, content: bytes) -> Iterator[tuple[Path, int]]:
        """A new file of these bytes, as a path and a handle, to be renamed; removed at the end where it is still here.
        Blocks; raises OSError."""
        path = self._folder / uuid.uuid4().hex
        try:
            with open(path, "xb", buffering=0, opener=_create_locked) as file:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                yield path, file.fileno()
        finally:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what writers that are gone left here; what a living process writes stays. Blocks; raises OSError."""
        for path in self._folder.iterdir():
            # A file may be renamed or removed by its writer, or by another sweep, at any moment.
            with suppress(FileNotFoundError):
                if _abandoned(path):
                    path.unlink()


async def _writer(path: Path) -> AsyncBufferedIOBase:
    with failures("making a file"):
        return await aiofiles.open(path, "xb", opener=_create_locked)


def _create_locked(path: str, flags: int) -> int:
    handle = os.open(path, flags, 0o444)
    # On a file system without locks a sweep cannot take one either, and goes by age alone.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _remove(path: Path) -> None:
    with failures("removing a file"):
        path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    status = path.stat()
    if time.time() - status.st_mtime > ABANDONED_AFTER:
        return True
    # An empty one may stand between its making and its lock; it weighs nothing and can wait for its hour.
    return status.st_size > 0 and not _locked(path)


def _locked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
