"""What the rest of Lockstep asks of its references, which are mutable: key → record.

A reference is written only once its blobs are there (blob_protocols.py), which have a lifetime of their own.
What replicas share their work by is in work_protocols.py.
"""

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from storage.content import Digest
from storage.records import (
    AskedRecord,
    BlobInfo,
    BuildRecord,
    BundleRecord,
    Claims,
    ContentRecord,
    Hold,
    Holders,
    Keep,
    LayerRecord,
    Lease,
    LockFilter,
    LockRecord,
    LockSummary,
    Page,
    PinName,
    PinRecord,
    Resolution,
    Standing,
    WorkloadRecord,
)
from storage.work_protocols import JobStore, LeaseStore, OperationStore, RefusalStore


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

    async def add_resolution(self, resolution: Resolution, lease: Lease | None = None) -> None:
        """Record that the key was answered with the lock at that time; the same pair again renews the time.

        Raises:
            LeaseLost: a lease was named and is not held any more; nothing was written.
        """
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

    async def standing(self, name: PinName, refreshes: bool, key: str, target: str, toolchain: str) -> Standing | None:
        """What the revision's pin for the key says for the target class, and that lock's bundle by the toolchain; in
        one read. Where `refreshes` is set, the workload's number of refreshes stands behind `name.revision`. None where
        there is no pin, or none of its locks covers the target class."""
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

    async def page(
        self, namespace: str | None, cursor: str | None, limit: int, *, lock: Digest | None = None
    ) -> Page[PinRecord]:
        """Pins, newest first; those of a namespace, those that hold a lock."""
        ...

    async def holders(
        self, digests: Collection[Digest], namespaces: Collection[str] | None = None
    ) -> dict[Digest, Holders]:
        """Which pins (of these namespaces; None: of all) hold each of these locks; a lock that is not here has none."""
        ...

    async def holds(self, lock: Digest, key: str) -> bool:
        """Whether a pin for the key holds the lock."""
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

    async def see(self, namespace: str, workload: str, at: datetime) -> None:
        """Record that the workload asked for something. To be done before its pins are read: a workload that is being
        forgotten at that moment is then seen too early to be forgotten, or forgotten whole."""
        ...

    async def see_all(self, seen: Collection[tuple[str, str]], at: datetime) -> None:
        """Record of all of these, by namespace and name, that they asked for something by then; none is seen earlier
        for it than it was."""
        ...

    async def unseen(self, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Workloads, by namespace and name, that were not seen, pinned, refreshed or held since then."""
        ...

    async def forget(self, namespace: str, workload: str, before: datetime) -> bool:
        """Forget the workload and its pins, unless it came back since then; returns whether it is forgotten."""
        ...


class ArtifactStore(Protocol):
    """Which layer was built from a wheel, which bundle from a lock.

    A record is a reference: blobs first. It is written on the strength of claims on the contents that it needs (see
    ContentStore), and is refused where one of those has been gone since it was claimed.
    """

    async def layer(self, wheel: Digest, python: str, toolchain: str) -> LayerRecord | None:
        """The layer of this wheel for this Python (`3.12`), built by this toolchain."""
        ...

    async def layer_by_diff_id(self, diff_id: Digest) -> LayerRecord | None:
        """The layer whose plain tar has this digest."""
        ...

    async def add_layer(self, layer: LayerRecord, claims: Claims) -> bool:
        """Keep the record, which needs its `digest` and its `listing`; the same key again replaces it. False where
        that was refused."""
        ...

    async def bundle(self, lock: Digest, target: str, toolchain: str) -> BundleRecord | None:
        """The bundle of this lock for this target class."""
        ...

    async def add_bundle(self, bundle: BundleRecord, claims: Claims) -> bool:
        """Keep the record, which needs all that is claimed: its manifest and what that names; the same key again
        replaces it. Counts as a use of the bundle. False where that was refused."""
        ...

    async def use(self, bundle: Digest, at: datetime) -> bool:
        """Record that the bundle is in use; False where there is no record of it (any more)."""
        ...


class BuildStore(Protocol):
    """Which wheel was built of a source distribution. A lock that names the wheel stays, so the record does, and with
    it the wheel: no index has it, and it may not come out the same again."""

    async def get(self, identifiers: Collection[str]) -> dict[str, BuildRecord]:
        """Those of the builds that there are, by their ids."""
        ...

    async def add(self, build: BuildRecord, claims: Claims) -> BuildRecord | None:
        """Keep the record, which needs its `wheel`, unless there is one: the first writer wins. Returns the one that
        stands; None where its wheel has been gone since it was claimed."""
        ...


class ImageStore(Protocol):
    """What an OCI client asks for: a bundle's locks, a workload's pins; and what comes to belong to a bundle later."""

    async def locks_of(self, bundle: Digest) -> list[Digest]:
        """The locks that this bundle was made from, in order; at most 100."""
        ...

    async def newest_pins(self, namespace: str, workload: str) -> list[PinRecord]:
        """The newest pin for each of the workload's keys, newest first; at most 50."""
        ...

    async def attach(self, bundle: Digest, claims: Claims) -> bool:
        """Have these contents kept as long as the bundle is. False where there is no record of the bundle, or one of
        them has been gone since it was claimed."""
        ...


class AccessStore(Protocol):
    """Which namespaces have a lock, or a content."""

    async def has_pinned(self, namespaces: Collection[str], lock: Digest) -> bool:
        """Whether one of the namespaces ever pinned the lock."""
        ...

    async def has_content(self, namespaces: Collection[str], content: Digest) -> bool:
        """Whether it is part of a bundle of a lock that one of the namespaces ever pinned."""
        ...

    async def locks_with(self, content: Digest) -> list[Digest]:
        """The locks of bundles that it is part of, in order; at most 100."""
        ...


class ContentStore(Protocol):
    """Which blobs references need. Whoever is about to rely on a blob claims it first, then looks whether it is there
    and writes it where it is not, and then writes the reference on the strength of the claim."""

    async def claim(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Claim these contents, there or not as yet: whatever mark they had is gone, so that no collection under way
        removes them any more."""
        ...

    async def needed(self, after: Digest | None, limit: int) -> list[Digest]:
        """Contents that records need, in the order of their digests, from behind that one."""
        ...

    async def is_needed(self, digest: Digest) -> bool:
        """Whether a record needs the content."""
        ...

    async def bundles(self, after: Digest | None, limit: int) -> list[Digest]:
        """Bundles that there are records of, in the order of their digests, from behind that one."""
        ...

    async def unknown(self, digests: Collection[Digest]) -> set[Digest]:
        """Those among them that nobody ever claimed, nor a collection saw."""
        ...

    def dropping(self, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Drop every record that needs the content. In the block, which no claim on it overlaps, the blob can be put
        away; what was claimed before is refused after."""
        ...


class RetentionStore(Protocol):
    """What is kept of the blobs, in batches of a transaction each; any number of collections may go on at once.

    A mark says since when nothing holds a content. It is all that a removal goes by, and whoever comes to rely on the
    content takes it away.
    """

    async def adopt(self, blobs: Collection[BlobInfo], at: datetime) -> int:
        """Learn the sizes of these blobs; those that are unknown are marked. Returns how many were."""
        ...

    async def held(self, keep: Keep) -> set[Digest]:
        """The contents that something holds: of the bundles that `keep` says, for each target class of a lock the one
        made last, and any in use: their parts, and the listings and wheels of their layers; and all built wheels."""
        ...

    async def page(self, after: Digest | None, limit: int) -> list[ContentRecord]:
        """All contents, in the order of their digests, from behind that one."""
        ...

    async def mark(self, digests: Collection[Digest], at: datetime | None) -> None:
        """Mark those that are not, or (None) take their marks away."""
        ...

    async def release(self, digests: Collection[Digest], keep: Keep, marked_by: datetime) -> list[Digest]:
        """Drop the records that need these contents, as far as they bear a mark that old, nobody is just claiming
        them and nothing holds them by now. Returns what no record needs any more, to be removed next."""
        ...

    def removing(
        self, digests: Collection[Digest], marked_by: datetime
    ) -> AbstractAsyncContextManager[list[ContentRecord]]:
        """Those of them that still bear a mark that old and nobody is just claiming. In the block, which no claim on
        them overlaps, their blobs are deleted; at its end they are forgotten."""
        ...


class AskedStore(Protocol):
    """What was asked for lately."""

    async def add(self, asked: Collection[AskedRecord]) -> None:
        """Count these in: times add up, the latest stands. No two of them have the same key and target."""
        ...

    async def most(self, since: datetime, limit: int) -> list[AskedRecord]:
        """What was asked for since then, the most times first, then the latest."""
        ...

    async def delete_before(self, time: datetime) -> int:
        """Forget what nobody asked for since; returns how many."""
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
    def builds(self) -> BuildStore:
        """Wheels built of source distributions."""
        ...

    @property
    def images(self) -> ImageStore:
        """Bundles as OCI clients ask for them."""
        ...

    @property
    def access(self) -> AccessStore:
        """Which namespaces have what."""
        ...

    @property
    def contents(self) -> ContentStore:
        """Which blobs references need."""
        ...

    @property
    def retention(self) -> RetentionStore:
        """What is kept of the blobs."""
        ...

    @property
    def operations(self) -> OperationStore:
        """Work that outlives its caller."""
        ...

    @property
    def leases(self) -> LeaseStore:
        """Who does what."""
        ...

    @property
    def refusals(self) -> RefusalStore:
        """What failed a moment ago."""
        ...

    @property
    def asked(self) -> AskedStore:
        """What was asked for lately."""
        ...

    @property
    def jobs(self) -> JobStore:
        """What waits for a worker."""
        ...

    async def ping(self) -> None:
        """Raises StorageUnavailable where the database does not answer."""
        ...
