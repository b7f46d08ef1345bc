"""One service's worth of parts on real stores, with a clock to turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from resolver.domain.locks import Lock
from resolver.service.fsck import Checked, Checking
from resolver.service.healing import Healing
from resolver.service.leases import Alone
from resolver.service.materialise import Materialising
from resolver.service.progress import Progress
from resolver.service.retain import Collected, Retaining, Rules
from resolver.service.uses import ClaimedWheels, Uses
from storage.blobs.filesystem import FilesystemBlobStore
from storage.content import Digest
from storage.metadata.store import SqlMetadataStore
from storage.records import BundleRecord, LockRecord, PinRecord
from tests.unit.service.parts import TARGET, Builder, Wheels

HOUR = timedelta(hours=1)
RULES = Rules(revisions=2, used=72 * HOUR, seen=1000 * HOUR, grace=HOUR)


class Keeping:
    """Asks for bundles, collects, checks."""

    def __init__(self, store: SqlMetadataStore, blobs: FilesystemBlobStore, folder: Path) -> None:
        self.store = store
        self.blobs = blobs
        self.root = folder / "blobs"
        self.time = datetime(2026, 11, 20, tzinfo=UTC)
        self.freed = 0
        self.wheels = Wheels(blobs)
        self.healing = Healing(blobs, store.contents)
        self._scratch = folder
        self.restart()

    def restart(self, patience: float = 5.0) -> None:
        """As a new process, which has seen nothing yet."""
        every = RULES.grace / 4
        uses = Uses(self.store.artifacts, self.store.workloads, every=every, patience=patience, clock=self.clock)
        self.materialising = Materialising(
            self.blobs,
            self.store.artifacts,
            self.store.contents,
            uses,
            self.healing,
            ClaimedWheels(self.wheels, self.store.contents, every=every, clock=self.clock),
            Builder(),
            {},
            self._scratch,
            Alone(),
        )

    def clock(self) -> datetime:
        self.time += timedelta(microseconds=1)
        return self.time

    async def bundle(self, lock: Lock) -> BundleRecord:
        return await self.materialising.bundle(lock, TARGET, Progress())

    async def pin(self, lock: Lock, workload: str = "checkout", revision: str = "r1") -> None:
        record = LockRecord(lock.digest, self.time, (), (TARGET.name,), 0, lock.content, ())
        await self.store.locks.add(record)
        await self.store.pins.add(PinRecord("shop", workload, revision, "key", lock.digest, self.clock()))

    async def collect(self, rules: Rules = RULES, *, dry_run: bool = False) -> Collected:
        def freed(count: int) -> None:
            self.freed += count

        retaining = Retaining(
            self.blobs, self.store.retention, self.store.workloads, rules, freed=freed, clock=self.clock
        )
        return await retaining.collect(dry_run=dry_run)

    async def check(self, *, repair: bool = False) -> Checked:
        return await Checking(self.blobs, self.store.contents, self.healing).check(repair=repair)

    async def digests(self) -> set[Digest]:
        return {blob.digest async for blob in self.blobs.all()}

    async def size(self) -> int:
        return sum([blob.size async for blob in self.blobs.all()])

    def file(self, digest: Digest) -> Path:
        return self.root / "blobs-v1" / "sha256" / digest.hex[:2] / digest.hex


@asynccontextmanager
async def keeping(folder: Path) -> AsyncIterator[Keeping]:
    store = await SqlMetadataStore.open(f"sqlite:///{folder}/lockstep.db")
    try:
        yield Keeping(store, await FilesystemBlobStore.open(folder / "blobs"), folder)
    finally:
        await store.close()
