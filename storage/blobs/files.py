"""Plain files, safely: closed also by callers that are cancelled, and failures told in the store's words."""

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from storage.content import CHUNK, Digest
from storage.errors import BlobNotFound, StorageFull, StorageUnavailable


class Closable(Protocol):
    """An open aiofiles file."""

    async def close(self) -> None:
        """Close the file."""
        ...


F = TypeVar("F", bound=Closable)


@contextmanager
def failures(doing: str, blob: Digest | None = None) -> Iterator[None]:
    """Turns what the operating system says into StorageFull or StorageUnavailable, which name no path; where `blob`
    is given, a file that is not there into BlobNotFound."""
    try:
        yield
    except OSError as error:
        if blob is not None and isinstance(error, FileNotFoundError):
            raise BlobNotFound(blob) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room left while {doing}") from error
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise StorageUnavailable(f"{name} while {doing}") from error


@asynccontextmanager
async def opened(opening: Awaitable[F]) -> AsyncIterator[F]:
    """The file that `opening` gives, closed at the end.

    A thread cannot be stopped: a caller that is cancelled while the file is being opened, read or written leaves a
    thread behind that still holds it. So the opening is a task of its own, which the closing waits for.
    """
    task = asyncio.ensure_future(opening)
    try:
        yield await asyncio.shield(task)
    finally:
        await asyncio.shield(_closed(task))


async def _closed(opening: asyncio.Future[F]) -> None:
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        # Who wanted the bytes kept has flushed them: what closing could still complain of are bytes given up.
        with suppress(OSError):
            await opening.result().close()


async def chunks_of(
    path: Path, start: int = 0, length: int | None = None, blob: Digest | None = None, most: int = CHUNK
) -> AsyncIterator[bytes]:
    """The file from byte `start`, `length` bytes of it (None: to its end), a chunk of `most` bytes at a time.

    Raises: as `failures` has them, for this `blob`.
    """
    in_thread = partial(asyncio.get_running_loop().run_in_executor, None)
    opening = in_thread(_open, path, blob)
    reading: asyncio.Future[bytes] | None = None
    try:
        file = await asyncio.shield(opening)
        position, end = start, None if length is None else start + length
        buffer = memoryview(bytearray(most if length is None else min(most, length)))
        while end is None or position < end:
            wanted = most if end is None else min(most, end - position)
            chunk = _in_memory(file.fileno(), buffer[:wanted], position)
            if not chunk:
                reading = in_thread(_read, file, position, wanted)
                chunk = await asyncio.shield(reading)
            if not chunk:
                return
            yield chunk
            position += len(chunk)
    finally:
        _close_after(reading or opening, opening)


def _open(path: Path, blob: Digest | None) -> BinaryIO:
    with failures("opening", blob):
        return path.open("rb")


def _read(file: BinaryIO, position: int, wanted: int) -> bytes:
    with failures("reading"):
        file.seek(position)
        return file.read(wanted)


def _close_after(using: asyncio.Future[Any], opening: asyncio.Future[BinaryIO]) -> None:
    """Close the file once no thread has it: where the caller is cancelled, one may have it for a while yet."""
    if not using.done():
        using.add_done_callback(lambda done: _close_after(done, opening))
        return
    if not using.cancelled():
        using.exception()  # heard, also where nobody waits for it any more
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()  # of a file that was only read: nothing that could be waited for


def _in_memory(handle: int, buffer: memoryview, position: int) -> bytes:
    """What the kernel has in memory of as much as fills the buffer, from that position on; none where it would have to
    wait for a disk, or cannot tell. Sparing two changes of threads a chunk is what a stream's cost is made of."""
    if sys.platform != "linux":
        return b""
    try:
        count = os.preadv(handle, [buffer], position, os.RWF_NOWAIT)
    except OSError:
        return b""  # the read that may wait tells what is wrong, if anything is
    return bytes(buffer[:count])


def sync_folder(folder: Path) -> None:
    """Make what was renamed into the folder survive a power cut. Blocks; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
