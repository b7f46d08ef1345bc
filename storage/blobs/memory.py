"""Blobs in this process's memory: for tests, and for trying things out."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.content import CHUNK, Digest
from storage.errors import BlobNotFound, DigestMismatch
from storage.records import BlobInfo


class MemoryBlobStore:
    """A blob store without a disk (storage.blob_protocols.BlobStore)."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, tuple[bytes, datetime]] = {}

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, or None where it is not here."""
        return len(self._blobs[digest][0]) if digest in self._blobs else None

    async def read(
        self, digest: Digest, start: int = 0, length: int | None = None, most: int = CHUNK
    ) -> AsyncIterator[bytes]:
        """The blob, or a part of it, in chunks. Raises BlobNotFound before the first."""
        content = self._content(digest)
        end = len(content) if length is None else min(len(content), start + length)
        for position in range(start, end, most):
            yield content[position : min(end, position + most)]

    @asynccontextmanager
    async def local(self, digest: Digest) -> AsyncIterator[Path]:
        """A temporary file with the content. Raises BlobNotFound."""
        content = self._content(digest)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="lockstep-blob-"))
        try:
            await asyncio.to_thread((folder / digest.hex).write_bytes, content)
            yield folder / digest.hex
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        """Keep the content if it is the expected one. Raises DigestMismatch."""
        if expected not in self._blobs:
            await asyncio.to_thread(self._add, b"".join([chunk async for chunk in chunks]), expected)
        return len(self._content(expected))

    async def add_file(self, path: Path, expected: Digest) -> int:
        """Keep the file's content if it is the expected one. Raises DigestMismatch."""
        if expected not in self._blobs:
            await asyncio.to_thread(self._add, await asyncio.to_thread(path.read_bytes), expected)
        return len(self._content(expected))

    async def all(self) -> AsyncIterator[BlobInfo]:
        """Every blob."""
        for digest, (content, modified) in list(self._blobs.items()):
            yield BlobInfo(digest, len(content), modified)

    async def delete(self, digest: Digest) -> None:
        """Remove the blob if it is here."""
        self._blobs.pop(digest, None)

    async def quarantine(self, digest: Digest) -> None:
        """Remove a damaged blob if it is here: memory has no place where somebody could look at it."""
        await self.delete(digest)

    async def ping(self) -> None:
        """Passes: memory is there."""

    def _add(self, content: bytes, expected: Digest) -> None:
        actual = Digest.of(content)
        if actual != expected:
            raise DigestMismatch(expected, actual, len(content))
        self._blobs[expected] = (content, datetime.now(UTC))

    def _content(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest][0]
        except KeyError:
            raise BlobNotFound(digest) from None
