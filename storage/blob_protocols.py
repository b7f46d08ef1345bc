"""What the rest of Lockstep asks of its blobs, which are immutable: digest → bytes."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from storage.content import CHUNK, Digest
from storage.records import (
    BlobInfo,
)


class BlobReader(Protocol):
    """Reads contents by their digest."""

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, or None where it is not here."""
        ...

    def read(
        self, digest: Digest, start: int = 0, length: int | None = None, most: int = CHUNK
    ) -> AsyncIterator[bytes]:
        """The blob from byte `start`, `length` bytes of it (None: to its end), in chunks of `most` bytes at most.

        Raises:
            BlobNotFound: before the first chunk.
        """
        ...

    def local(self, digest: Digest) -> AbstractAsyncContextManager[Path]:
        """A read-only file with the blob's content, good while the context is open; for worker processes.

        Raises:
            BlobNotFound: on entering.
            DigestMismatch: on entering, by a store that had to fetch the content and got another.
        """
        ...


class BlobWriter(Protocol):
    """Adds contents. Writing what is there already is normal, not an error."""

    async def write(self, chunks: AsyncIterator[bytes], expected: Digest) -> int:
        """Keep what `chunks` gives if it is what `expected` names; returns its bytes. Visible whole or not at all.

        Raises:
            DigestMismatch: it is not; nothing was kept.
            StorageFull: no room; nothing was kept.
        """
        ...

    async def add_file(self, path: Path, expected: Digest) -> int:
        """Keep this file's content (the file may be moved away); returns its bytes. Raises as `write` does."""
        ...


class BlobJanitor(Protocol):
    """Looks after contents as a whole."""

    def all(self) -> AsyncIterator[BlobInfo]:
        """Every blob, in no order that means something."""
        ...

    async def delete(self, digest: Digest) -> None:
        """Remove the blob if it is there."""
        ...

    async def ping(self) -> None:
        """Raises StorageUnavailable where the store does not answer."""
        ...

    async def quarantine(self, digest: Digest) -> None:
        """Put a damaged blob out of the way if it is there: aside, for somebody to look at, or away for good."""
        ...


class BlobStore(BlobReader, BlobWriter, BlobJanitor, Protocol):
    """A whole blob store."""


@runtime_checkable
class BlobLinks(Protocol):
    """What a blob store has beside, where others can fetch from it without passing through the service."""

    async def presigned(self, digest: Digest, seconds: int) -> str | None:
        """A URL that answers a GET with the blob, to whoever has it, for that many seconds; None where this store
        cannot make one. Does not look whether the blob is there; who fetches it verifies what it gets.

        Raises:
            StorageUnavailable: what signs cannot be reached.
        """
        ...
