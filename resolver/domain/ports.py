"""What the use cases ask of engines, package indexes and the layer builder."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from packaging.pylock import Package, PackageWheel, Pylock
from packaging.utils import NormalizedName

from resolver.domain.builds import BuildPolicy, Built, Failed, SdistFacts, Wants
from resolver.domain.layers import BuiltLayer
from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Index, Question, public_url
from storage.content import Digest
from storage.records import Lease

V = TypeVar("V")


class Locker(Protocol):
    """An engine that resolves."""

    @property
    def name(self) -> str:
        """`uv` or `pip`."""
        ...

    async def lock(self, question: Question) -> Pylock | NoSolution:
        """Resolve, wheels only, running no package's code; the answer is valid (PEP 751).

        Raises:
            UnsupportedTarget: this engine cannot answer for that target.
            IndexUnavailable: an index did not answer.
            TimedOut: the engine's time was up; it is gone.
            EngineFailed: the engine ended in a way that is no answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """A file of a project's page (PEP 503, 592, 658, 691, 700). `yanked` is the reason ("" where none is given),
    None where the file is not yanked; `metadata_hash` the SHA-256 of its METADATA where the index serves that,
    "" where it serves it without a hash, None where it does not."""

    filename: str
    url: str
    sha256: str | None
    size: int | None
    upload_time: datetime | None
    requires_python: str | None
    yanked: str | None
    metadata_hash: str | None


@dataclass(frozen=True, slots=True)
class Project:
    """A project's page on the first index that has it."""

    name: NormalizedName
    index: Index
    files: tuple[ProjectFile, ...]


class ProjectPages(Protocol):
    """Reads the Simple API."""

    async def project(self, name: NormalizedName, indexes: tuple[Index, ...]) -> Project | None:
        """The project's page on the first of the indexes that has it, None where none has.

        Raises:
            IndexUnavailable: an index before the one that has it did not answer as an index does.
        """
        ...


class IndexProbe(Protocol):
    """Finds out whether an index answers at all."""

    async def fault(self, index: Index) -> str | None:
        """Why the index cannot be used just now; None where it answers as a server does."""
        ...


@dataclass(frozen=True, slots=True)
class WheelReference:
    """A wheel as a lock names it. `url` holds no credential; `index` says whose file it is."""

    name: NormalizedName
    version: str
    filename: str
    url: str
    digest: Digest
    size: int | None
    index: Index

    @classmethod
    def locked(cls, package: Package, wheel: PackageWheel, index: Index) -> Self:
        """The wheel of a package of a lock."""
        return cls(
            name=package.name,
            version=str(package.version),
            filename=wheel.filename,
            url=public_url(wheel.url or ""),
            digest=Digest.from_hex(wheel.hashes["sha256"]),
            size=wheel.size,
            index=index,
        )


class WheelFetcher(Protocol):
    """Brings wheels into the blob store."""

    async def fetch(self, wheel: WheelReference) -> None:
        """See to it that the wheel is in the blob store; one that is there is not fetched again.

        Raises:
            IndexUnavailable: it could not be had.
            ContentMismatch: what came is not what the lock names.
            StorageFull: no room (storage.errors).
        """
        ...

    async def metadata(self, wheel: WheelReference, published: ProjectFile | None) -> bytes:
        """The wheel's METADATA: from the index where it serves it with a hash (PEP 658), else out of the wheel.

        Raises: as `fetch`, and InvalidWheel where the wheel has none.
        """
        ...


class Exclusive(Protocol):
    """Sees to it that a piece of work is done by one replica at a time."""

    def once(
        self, name: str, look: Callable[[], Awaitable[V | None]], work: Callable[[Lease | None], Awaitable[V]]
    ) -> Coroutine[Any, Any, V]:
        """What `look` finds, as soon as it finds something; else what `work` makes, once it is this replica's turn.

        Where the work publishes what must not be published late, it does so under the lease that it is given.

        Raises:
            TimedOut: no turn came, and nobody else's work was found.
            What `look` and `work` raise.
        """
        ...


class LayerBuilder(Protocol):
    """Turns a wheel into a layer, in worker processes."""

    def toolchain(self, python: str) -> str:
        """The fingerprint of all that shapes a layer's bytes for this Python (`3.12`), beside the wheel."""
        ...

    def has_interpreter(self, python: str) -> bool:
        """Whether layers for this Python get byte-code."""
        ...

    async def build(self, wheel: Path, filename: str, python: str, folder: Path) -> BuiltLayer:
        """Install the wheel file at `wheel`, published as `filename`, and pack it into a file in `folder`.

        Raises:
            InvalidWheel: it breaks PEP 427, reaches outside of its tree, or expands without end.
            TimedOut: the build's time was up; its processes are gone.
        """
        ...

    async def build_pth_hook(self, python: str, folder: Path) -> BuiltLayer:
        """The layer that makes `.pth` files of a bundle take effect (a chained `sitecustomize.py`)."""
        ...

    async def merge(self, layers: Sequence[tuple[Path, Digest]], python: str, folder: Path) -> BuiltLayer:
        """One layer, a file in `folder`, that is what these are when each is laid over those before it; each is the
        file of a layer and its diff_id.

        Raises:
            DamagedLayer: one of them is not what its diff_id names.
            TimedOut: as `build`.
        """
        ...


class SdistBuilder(Protocol):
    """Makes wheels of source distributions, where no code of theirs can do harm. All that it works on is in the folder
    that it is given, which is empty at first."""

    @property
    def name(self) -> str:
        """What shapes a wheel beside its sdist and its build requirements, in a word."""
        ...

    async def missing(self) -> str | None:
        """What is missing here for it to work; None where nothing is."""
        ...

    async def read(self, sdist: Path, filename: str, folder: Path) -> SdistFacts | Failed:
        """What stands in the sdist; runs none of its code."""
        ...

    async def build(
        self,
        sdist: tuple[str, Path],
        facts: SdistFacts,
        wheels: Mapping[str, Path],
        folder: Path,
        policy: BuildPolicy,
        *,
        final: bool,
    ) -> Built | Wants | Failed:
        """The wheel of the sdist (its file name, its file), in an environment that has these wheels, by their names,
        and nothing else. Where `final`, whatever else it wants; it may fail then."""
        ...


class Launched(Protocol):
    """A builder that was started."""

    async def ended(self) -> str:
        """Waits until it has ended, and says how, in words for a person. Cancelling changes nothing."""
        ...


class BuilderLauncher(Protocol):
    """Starts builders, each in a place of its own, for one task, and gone with it."""

    async def missing(self, place: str) -> str | None:
        """What is missing here to start one for this target class, or ANY; None where nothing is."""
        ...

    def launch(self, place: str, token: str, seconds: float) -> AbstractAsyncContextManager[Launched]:
        """Start `lockstep builder --once --server URL` for this target class, or ANY: it asks the service for the task
        that `token` is good for, and has so many seconds. When the block is left, whatever is left of it is removed.

        Raises:
            BuilderUnavailable: it could not be started; says why in words for a person, no credential.
        """
        ...
