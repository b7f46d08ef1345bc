"""The records that a metadata store keeps. Plain values; times are aware and in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from storage.content import Digest

T = TypeVar("T")

Claims = Mapping[Digest, int]
"""Contents that somebody relies on, each in the incarnation that was seen: another one has been gone in between."""


class InvalidCursor(ValueError):
    """The cursor was not given by this list."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and where the next part starts (None: this was the last)."""

    items: list[T]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob as the store lists it."""

    digest: Digest
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class LockSummary:
    """What a list of locks shows."""

    digest: Digest
    created: datetime
    requirements: tuple[str, ...]
    targets: tuple[str, ...]
    package_count: int


@dataclass(frozen=True, slots=True)
class LockRecord(LockSummary):
    """A lock, whole. `packages` are (name, version) pairs, for searching."""

    content: bytes
    packages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LockFilter:
    """Which locks: those with this package, those that a pin of this namespace holds."""

    package: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """A key was answered with a lock, at a time; `targets` are the classes that the lock covers."""

    key: str
    lock: Digest
    targets: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class PinRecord:
    """(namespace, workload, revision, key) → locks. `lock` came first; `extensions` (target class, lock) were
    added for target classes that it does not cover, its versions held."""

    namespace: str
    workload: str
    revision: str
    key: str
    lock: Digest
    created: datetime
    stale: bool = False
    extensions: tuple[tuple[str, Digest], ...] = ()


@dataclass(frozen=True, slots=True)
class PinName:
    """Which workload's revision a pin is of."""

    namespace: str
    workload: str
    revision: str


@dataclass(frozen=True, slots=True)
class Holders:
    """The pins that hold a lock: how many (1000 stands for that many or more), and the `newest` few of them."""

    count: int
    newest: tuple[PinName, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """New revisions take this lock until the next refresh."""

    lock: Digest
    at: datetime


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """A workload as its operator left it; `refreshes` counts refreshes so far."""

    namespace: str
    workload: str
    refreshes: int = 0
    refreshed_at: datetime | None = None
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One wheel's installed tree, as a tar+zstd blob of `size` bytes that holds a plain tar of `tar_size`.

    `listing` is the digest of a blob: JSON, path → hash of its content (the first 16 hexadecimal digits of SHA-256),
    to find paths that two layers share.
    """

    wheel: Digest
    python: str
    toolchain: str
    digest: Digest
    size: int
    diff_id: Digest
    tar_size: int
    unpacked_size: int
    listing: Digest
    has_pth: bool
    has_bytecode: bool


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """A lock's bundle for one target class. `size` is what a client downloads (layers as tar+zstd),
    `unpacked_size` what it writes; `warnings` as the API shows them."""

    lock: Digest
    target: str
    toolchain: str
    digest: Digest
    size: int
    unpacked_size: int
    created: datetime
    warnings: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """A wheel of `size` bytes that was built of a source distribution (`sdist`): with what the lock `requirements` has,
    for a `target` class or "any", by a `builder`, in so many seconds. `reproducible`: twice, and equal. `log`: the end
    of what it printed. `id` says which build it is, for whom."""

    id: str
    sdist: Digest
    requirements: Digest
    target: str
    builder: str
    wheel: Digest
    filename: str
    size: int
    reproducible: bool
    created: datetime
    seconds: float
    log: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a pin says for one target class: which of its locks, and that lock's bundle, if there is a record of one.
    `seen`: when its workload was last seen."""

    pin: PinName
    lock: Digest
    stale: bool
    seen: datetime | None
    bundle: BundleRecord | None


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """Work under way, or how it ended: `result` or `problem`, both as the API answers them."""

    id: str
    kind: str
    state: str  # running | succeeded | failed
    created: datetime
    updated: datetime
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do the piece of work `name`, until it expires. `token` grows with every holder that did not give
    it back; `takeover`: it was taken from one of those."""

    name: str
    holder: str
    token: int
    takeover: bool = False


@dataclass(frozen=True, slots=True)
class AskedRecord:
    """What was asked for: by its key and target class, how many times so far, the last time at `last`. `request` is
    what it takes to ask it again; it holds no credential."""

    key: str
    target: str
    request: dict[str, Any]
    times: int
    last: datetime


@dataclass(frozen=True, slots=True)
class ContentRecord:
    """A blob as the database knows it: `size` in bytes once a collection has seen it, `marked` since when nothing holds
    it as far as collections have seen."""

    digest: Digest
    size: int | None
    marked: datetime | None


@dataclass(frozen=True, slots=True)
class Keep:
    """What holds a bundle: a pin of one of its workload's newest `revisions` revisions, a hold, a use after that
    time."""

    revisions: int
    used_after: datetime


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Cold work that waits for a worker: a request as it can be asked again, for a target class. `problem`, as the
    API shows it, says how it `failed`; then it waits no more."""

    id: str
    namespace: str
    target: str
    request: dict[str, Any]
    created: datetime
    failed: datetime | None = None
    problem: dict[str, Any] | None = None
