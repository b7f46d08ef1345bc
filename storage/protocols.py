"""What the rest of Lockstep asks of its stores.

Two kinds, with separate lifetimes: blobs are immutable (digest → bytes), references are mutable
(key → record). A reference is written only once its blobs are there.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from storage.content import Digest
from storage.records import (
    BlobInfo,
    BundleRecord,
    Hold,
    LayerRecord,
    LockFilter,
    LockRecord,
    LockSummary,
    OperationRecord,
    Page,
    PinRecord,
    Resolution,
    WorkloadRecord,
)


class BlobReader(Protocol):
    """Reads contents by their digest."""

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, or None where it is not here."""
        ...

    def read(self, digest: Digest, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The blob from byte `start`, `length` bytes of it (None: to its end), in chunks of 1 MiB at most.

        Raises:
            BlobNotFound: before the first chunk.
        """
        ...

    def local(self, digest: Digest) -> AbstractAsyncContextManager[Path]:
        """A read-only file with the blob's content, good while the context is open; for worker processes.

        Raises:
            BlobNotFound: on entering.
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


class BlobStore(BlobReader, BlobWriter, BlobJanitor, Protocol):
    """A whole blob store."""


class LockStore(Protocol):
    """Locks by digest, and which key was answered with which lock."""

    async def add(self, lock: LockRecord) -> None:
        """Keep the lock; one that is there stays as it was (locks are immutable)."""
        ...

    async def get(self, digest: Digest) -> LockRecord | None:
        """The lock, whole."""
        ...

    async def page(self, where: LockFilter, cursor: str | None, limit: int) -> Page[LockSummary]:
        """Locks, newest first. Raises InvalidCursor for a cursor that this store did not give."""
        ...

    async def add_resolution(self, resolution: Resolution) -> None:
        """Record that the key was answered with the lock at that time; the same pair again renews the time."""
        ...

    async def resolutions(self, key: str) -> list[Resolution]:
        """What the key was answered with, newest first; at most 100."""
        ...

    async def keys_of(self, digest: Digest) -> list[str]:
        """The keys that were answered with this lock."""
        ...


class PinStore(Protocol):
    """(namespace, workload, revision, key) → locks: what makes replicas agree. The first writer wins."""

    async def get(self, namespace: str, workload: str, revision: str, key: str) -> PinRecord | None:
        """The revision's pin for the key."""
        ...

    async def newest(self, namespace: str, workload: str, key: str, after: datetime | None) -> PinRecord | None:
        """The newest pin of any revision for the key, made after that time, that is not stale."""
        ...

    async def add(self, pin: PinRecord) -> PinRecord:
        """Write the pin unless there is one; returns the one that stands."""
        ...

    async def extend(self, pin: PinRecord, target: str, lock: Digest) -> PinRecord:
        """Add a lock for one more target class if the pin still has just the extensions of `pin`: its versions were
        held on the strength of those. Returns the pin that stands."""
        ...

    async def page(self, namespace: str | None, cursor: str | None, limit: int) -> Page[PinRecord]:
        """Pins, newest first."""
        ...

    async def of_locks(self, digests: Collection[Digest]) -> dict[Digest, list[PinRecord]]:
        """The pins that hold each of these locks."""
        ...


class WorkloadStore(Protocol):
    """What an operator said of a workload as a whole."""

    async def get(self, namespace: str, workload: str) -> WorkloadRecord:
        """The record; one that nobody touched has no refresh and no hold."""
        ...

    async def refresh(self, namespace: str, workload: str, at: datetime) -> WorkloadRecord:
        """Record a refresh: ends a hold, starts the next revision of a workload without revisions."""
        ...

    async def hold(self, namespace: str, workload: str, hold: Hold) -> WorkloadRecord:
        """Name the lock that new revisions take until the next refresh."""
        ...


class ArtifactStore(Protocol):
    """Which layer was built from a wheel, which bundle from a lock. A record is a reference: blobs first."""

    async def layer(self, wheel: Digest, python: str, toolchain: str) -> LayerRecord | None:
        """The layer of this wheel for this Python (`3.12`), built by this toolchain."""
        ...

    async def layer_by_diff_id(self, diff_id: Digest) -> LayerRecord | None:
        """The layer whose plain tar has this digest."""
        ...

    async def add_layer(self, layer: LayerRecord) -> None:
        """Keep the record; the same key again replaces it."""
        ...

    async def bundle(self, lock: Digest, target: str, toolchain: str) -> BundleRecord | None:
        """The bundle of this lock for this target class."""
        ...

    async def add_bundle(self, bundle: BundleRecord) -> None:
        """Keep the record; the same key again replaces it."""
        ...


class OperationStore(Protocol):
    """Work that outlives its caller."""

    async def put(self, operation: OperationRecord) -> None:
        """Write the operation as it stands now."""
        ...

    async def get(self, identifier: str) -> OperationRecord | None:
        """The operation, unless it ended long ago."""
        ...

    async def delete_before(self, time: datetime) -> int:
        """Forget operations not updated since; returns how many."""
        ...


class MetadataStore(Protocol):
    """All the references, in one database."""

    @property
    def locks(self) -> LockStore:
        """Locks, and the keys that they answer."""
        ...

    @property
    def pins(self) -> PinStore:
        """Who runs what."""
        ...

    @property
    def workloads(self) -> WorkloadStore:
        """Refreshes and holds."""
        ...

    @property
    def artifacts(self) -> ArtifactStore:
        """Layers and bundles."""
        ...

    @property
    def operations(self) -> OperationStore:
        """Work that outlives its caller."""
        ...

    async def ping(self) -> None:
        """Raises StorageUnavailable where the database does not answer."""
        ...
