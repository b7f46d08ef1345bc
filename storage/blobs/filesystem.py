"""Blobs as files in a folder.

    <root>/blobs-v1/
    ├── sha256/
    │   ├── 00/ … ff/            the first two digits
    │   │   └── <64 digits>      a blob, whole, read-only: it gets this name only after its digest was checked
    └── staging/
        └── <random>             being written by a living process, or left by a dead one and swept at the next start
    <root>/quarantine-v1/
    └── <64 digits>              a blob that was found damaged, put there for somebody to look at; nothing reads it

Several processes may use one folder: a blob appears by a rename, and two writers of one blob rename the same bytes.
"""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from storage.blobs.files import chunks_of, failures, sync_folder
from storage.blobs.incoming import blocks, verify
from storage.blobs.staging import Staging
from storage.content import CHUNK, Digest
from storage.errors import BlobNotFound
from storage.records import BlobInfo

T = TypeVar("T")

_FAN_OUT = tuple(f"{first:02x}" for first in range(256))
_NAME = re.compile(r"[0-9a-f]{64}")


class FilesystemBlobStore:
    """A blob store in a folder (storage.blob_protocols.BlobStore). Made ready by `open`."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs-v1" / "sha256"
        self._staging_folder = root / "blobs-v1" / "staging"
        self._quarantine = root / "quarantine-v1"
        self._staging = Staging(self._staging_folder)

    @classmethod
    async def open(cls, root: Path) -> Self:
        """The store in this folder, its folders made, what crashed writers left there swept.

        Raises:
            StorageFull, StorageUnavailable: the folder cannot be made ready.
        """
        store = cls(root)
        await asyncio.to_thread(store._prepare)
        return store

    def _prepare(self) -> None:
        with failures("opening the blob store"):
            self._staging_folder.mkdir(parents=True, exist_ok=True)
            for name in _FAN_OUT:
                (self._blobs / name).mkdir(parents=True, exist_ok=True)
            for folder in (self._blobs, self._blobs.parent, self._blobs.parent.parent):
                sync_folder(folder)
            self._staging.sweep()

    def _path(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, or None where it is not here."""
        try:
            with failures("looking for a blob", digest):
                return (await asyncio.to_thread(self._path(digest).stat)).st_size
        except BlobNotFound:
            return None

    def read(
        self, digest: Digest, start: int = 0, length: int | None = None, most: int = CHUNK
    ) -> AsyncIterator[bytes]:
        """The blob, or a part of it, in chunks. Raises BlobNotFound before the first."""
        return chunks_of(self._path(digest), start, length, digest, most)

    @asynccontextmanager
    async def local(self, digest: Digest) -> AsyncIterator[Path]:
        """The blob's own file. Raises BlobNotFound."""
        if await self.size(digest) is None:
            raise BlobNotFound(digest)
        yield self._path(digest)

    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        """Keep the content if it is the expected one; one that is here already stays, and `chunks` is not asked.

        Raises: DigestMismatch, StorageFull, StorageUnavailable, and whatever `chunks` does; nothing was kept.
        """
        present = await self.size(expected)
        if present is not None:
            return present
        async with aclosing(blocks(chunks, CHUNK)) as incoming:
            first = await anext(incoming, b"")
            if len(first) < CHUNK:  # all of it, as for most blobs: not worth a change of threads for every step
                return await _uninterrupted(asyncio.to_thread(self._keep, first, expected))
            return await self._stream(first, incoming, expected)

    def _keep(self, content: bytes, expected: Digest) -> int:
        verify(expected, hashlib.sha256(content).hexdigest(), len(content))
        with failures("writing a blob"), self._staging.file_of(content) as (path, handle):
            self._commit(handle, path, expected)
        return len(content)

    async def _stream(self, first: bytes, others: AsyncIterator[bytes], expected: Digest) -> int:
        hasher = hashlib.sha256()
        size = 0
        block = first
        async with self._staging.file() as (path, file):
            while block:
                with failures("writing a blob"):
                    await asyncio.gather(file.write(block), asyncio.to_thread(hasher.update, block))
                size += len(block)
                block = await anext(others, b"")
            verify(expected, hasher.hexdigest(), size)
            with failures("committing a blob"):
                await file.flush()
                await asyncio.to_thread(self._commit, file.fileno(), path, expected)
        return size

    async def add_file(self, path: Path, expected: Digest) -> int:
        """Move the file in if its content is the expected one; copied where it is on another file system.

        Raises: as `write`.
        """
        present = await self.size(expected)
        if present is not None:
            return present
        try:
            return await asyncio.to_thread(self._move, path, expected)
        except _OtherFileSystem:
            return await self.write(chunks_of(path), expected)

    def _move(self, path: Path, expected: Digest) -> int:
        with failures("adding a file"), path.open("rb") as file:
            verify(expected, hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
            os.fchmod(file.fileno(), 0o444)
            try:
                self._commit(file.fileno(), path, expected)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise _OtherFileSystem from error
                raise
            return file.tell()

    def _commit(self, handle: int, path: Path, digest: Digest) -> None:
        """The bytes first, then the name, then the folder that holds the name: so a power cut leaves no half blob."""
        os.fsync(handle)
        final = self._path(digest)
        path.rename(final)
        sync_folder(final.parent)

    async def all(self) -> AsyncIterator[BlobInfo]:
        """Every blob; one that is added or deleted meanwhile may be among them or not."""
        for name in _FAN_OUT:
            for info in await asyncio.to_thread(_listing, self._blobs / name):
                yield info

    async def delete(self, digest: Digest) -> None:
        """Remove the blob if it is here; who reads it already reads on."""
        with failures("deleting a blob"):
            await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    async def quarantine(self, digest: Digest) -> None:
        """Move a damaged blob to `quarantine-v1`, over one that was moved there before; nothing where it is gone."""
        await asyncio.to_thread(self._set_aside, digest)

    def _set_aside(self, digest: Digest) -> None:
        with failures("setting a damaged blob aside"):
            self._quarantine.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                self._path(digest).rename(self._quarantine / digest.hex)
                sync_folder(self._path(digest).parent)

    async def ping(self) -> None:
        """Raises StorageUnavailable where the folder cannot be read."""
        with failures("looking at the blob store"):
            await asyncio.to_thread(os.listdir, self._staging_folder)


class _OtherFileSystem(Exception):
    """A rename cannot bring the file here."""


async def _uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to. A thread cannot be stopped: a caller that is cancelled waits for its end all the same."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        task.exception()  # heard, though nobody waits for it any more
        raise


def _listing(folder: Path) -> list[BlobInfo]:
    infos = []
    with failures("listing blobs"), os.scandir(folder) as entries:
        for entry in entries:
            if not _NAME.fullmatch(entry.name):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            infos.append(BlobInfo(Digest.from_hex(entry.name), status.st_size, modified))
    return infos
