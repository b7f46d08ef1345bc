"""Real stores, real replicas and collections, and a time of its own; what a machine steers and checks."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from resolver.domain.errors import Busy
from resolver.domain.locks import Lock
from resolver.service.healing import Healing
from resolver.service.leases import Alone
from resolver.service.materialise import Materialising
from resolver.service.progress import Progress
from resolver.service.retain import Retaining, Rules
from resolver.service.uses import ClaimedWheels, Uses
from storage.blobs.memory import MemoryBlobStore
from storage.content import Digest
from storage.metadata.store import SqlMetadataStore
from storage.records import BundleRecord, Hold, LockRecord, PinRecord
from tests.unit.service.parts import TARGET, Builder, Wheels, lock_of, manifest_parts, wheel_digest
from tests.unit.service.replica import Killed, Replica, Stage

RULES = Rules(
    revisions=2,
    used=timedelta(hours=3),
    seen=timedelta(days=30),
    grace=timedelta(hours=1),
)
EVERY = RULES.grace / 4
LOCKS = [lock_of(*names) for names in (("a", "b"), ("b", "c"), ("c", "d"), ("d",))]
WHEELS = {wheel_digest(name) for name in "abcd"}
START = datetime(2026, 11, 20, tzinfo=UTC)


class Process(Replica):
    """A replica of the service: it keeps what it has seen for as long as it lives."""

    materialising: Materialising


class World:
    """The stores and all that works on them. `answered`: when each lock's bundle was last given out, by toolchain."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self.store = store
        self.blobs = MemoryBlobStore()
        self.stage = Stage()
        self.time = START
        self.answered: dict[tuple[Digest, str], datetime] = {}
        self._scratch = tempfile.TemporaryDirectory()
        self.processes = [self.new_process("t1"), self.new_process("t1")]
        self.collectors = [Replica(self.stage), Replica(self.stage)]

    async def set_up(self) -> None:
        for lock in LOCKS:
            names = tuple(str(requirement) for requirement in lock.requirements)
            await self.store.locks.add(
                LockRecord(lock.digest, START, names, (TARGET.name,), len(names), lock.content, ())
            )

    async def tear_down(self) -> None:
        await self.store.close()
        self._scratch.cleanup()

    def clock(self) -> datetime:
        """No two moments are the same."""
        self.time += timedelta(microseconds=1)
        return self.time

    def new_process(self, toolchain: str) -> Process:
        process = Process(self.stage)
        blobs = process.gated(self.blobs, database=False)
        artifacts = process.gated(self.store.artifacts, database=True)
        contents = process.gated(self.store.contents, database=True)
        workloads = process.gated(self.store.workloads, database=True)
        process.materialising = Materialising(
            blobs,
            artifacts,
            contents,
            Uses(artifacts, workloads, every=EVERY, patience=3600, clock=self.clock),
            Healing(blobs, contents),
            ClaimedWheels(Wheels(blobs), contents, every=EVERY, clock=self.clock),
            Builder(toolchain),
            {},
            Path(self._scratch.name),
            Alone(),
        )
        return process

    async def ask(self, process: Process, lock: Lock) -> None:
        """Let the process give out the lock's bundle."""
        asked = self.time  # its use is recorded between now and the answer, and holds from then on

        async def answer() -> None:
            try:
                record = await process.materialising.bundle(lock, TARGET, Progress())
            except Busy:
                return
            await self.check_whole(record)
            place = lock.digest, record.toolchain
            self.answered[place] = max(asked, self.answered.get(place, START))

        process.start(answer())
        await self.stage.settle()

    async def collect(self, collector: Replica) -> None:
        """Start a collection, unless this collector is at one."""
        if all(task.done() for task in collector.tasks):
            collector.start(self._retaining(collector.gated(self.store, database=True), collector).collect())
            await self.stage.settle()

    async def collect_whole(self) -> None:
        """A collection that nobody disturbs."""
        blobs, store = self.blobs, self.store
        await Retaining(blobs, store.retention, store.workloads, RULES, clock=self.clock).collect()

    def _retaining(self, store: Any, collector: Replica) -> Retaining:
        blobs = collector.gated(self.blobs, database=False)
        return Retaining(blobs, store.retention, store.workloads, RULES, clock=self.clock)

    async def pin(self, lock: Lock, workload: str, revision: str) -> None:
        await self.store.workloads.see("shop", workload, self.clock())
        await self.store.pins.add(PinRecord("shop", workload, revision, "key", lock.digest, self.clock()))

    async def hold(self, lock: Lock, workload: str) -> None:
        await self.store.workloads.hold("shop", workload, Hold(lock.digest, self.clock()))

    async def check_whole(self, record: BundleRecord) -> None:
        """What is given out is there, at that moment."""
        manifest = await self.content(record.digest)
        for part in manifest_parts(manifest):
            assert await self.blobs.size(part) is not None, f"a part of a bundle that was given out is gone: {part}"

    async def check_references(self) -> None:
        """Whatever a record needs is there, at any moment."""
        for digest in await self.store.contents.needed(None, 10_000):
            assert await self.blobs.size(digest) is not None, f"a record needs {digest}, which is gone"
        for bundle in await self.store.contents.bundles(None, 10_000):
            for part in manifest_parts(await self.content(bundle)):
                assert await self.blobs.size(part) is not None, f"bundle {bundle} names {part}, which is gone"

    async def content(self, digest: Digest) -> bytes:
        return b"".join([chunk async for chunk in self.blobs.read(digest)])

    async def records(self) -> dict[tuple[Digest, str], BundleRecord]:
        """The bundles that there are records of, by lock and toolchain."""
        found = {
            (lock.digest, toolchain): await self.store.artifacts.bundle(lock.digest, TARGET.name, toolchain)
            for lock in LOCKS
            for toolchain in ("t1", "t2")
        }
        return {place: record for place, record in found.items() if record is not None}

    async def held(self, records: Mapping[tuple[Digest, str], BundleRecord]) -> set[tuple[Digest, str]]:
        """Of the bundles that there are records of, those that must not go: worked out here from pins, holds, and what
        was given out, not asked of the store."""
        pins = (await self.store.pins.page(None, None, 10_000)).items
        locks: set[Digest] = set()
        for workload in {pin.workload for pin in pins}:
            newest: dict[str, datetime] = {}
            for pin in (pin for pin in pins if pin.workload == workload):
                newest[pin.revision] = max(pin.created, newest.get(pin.revision, START))
            kept = sorted(newest, key=lambda revision: newest[revision], reverse=True)[: RULES.revisions]
            locks |= {pin.lock for pin in pins if pin.workload == workload and pin.revision in kept}
        for workload in ("checkout", "search"):
            on_hold = (await self.store.workloads.get("shop", workload)).hold
            locks |= {on_hold.lock} if on_hold else set()
        made_last: dict[Digest, BundleRecord] = {}
        for (lock, _), record in records.items():
            if lock not in made_last or record.created > made_last[lock].created:
                made_last[lock] = record
        return self.in_use() | {(lock, record.toolchain) for lock, record in made_last.items() if lock in locks}

    def in_use(self) -> set[tuple[Digest, str]]:
        """The bundles that were given out not long ago; that may have been recorded a little while before."""
        return {place for place, at in self.answered.items() if self.time - at < RULES.used - EVERY}

    async def check_only_held_is_left(self) -> None:
        """Garbage is gone: blobs and rows are just those of what is held."""
        expected: set[Digest] = set()
        records = await self.records()
        for record in records.values():
            expected |= {record.digest, *manifest_parts(await self.content(record.digest))}
        assert set(records) == await self.held(records), "records of garbage are left"
        for lock, toolchain in records:
            for package in next(each for each in LOCKS if each.digest == lock).pylock.packages:
                wheel = wheel_digest(canonicalize_name(package.name))
                layer = await self.store.artifacts.layer(wheel, TARGET.python, toolchain)
                expected |= {wheel} if layer is None else {wheel, layer.listing}
        there = {blob.digest async for blob in self.blobs.all()}
        assert there - expected == set(), "garbage is left"
        rows = {record.digest for record in await self.store.retention.page(None, 10_000)}
        assert rows - expected == set(), "rows of garbage are left"

    async def quiet(self) -> None:
        """Everything that was begun is brought to its end."""
        for replica in (*self.processes, *self.collectors):
            while not all(task.done() for task in replica.tasks):
                if not await replica.step(0):
                    # Waits for another's transaction.
                    writer = self.stage.writer
                    assert writer is not None
                    await writer.step(0)
        self.raise_failures()

    async def leave_an_orphan(self, content: bytes) -> None:
        """A blob that nobody claimed."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        await self.blobs.write(chunks(), Digest.of(content))

    def raise_failures(self) -> None:
        """What ended badly, but by being killed, ends the test."""
        for replica in (*self.processes, *self.collectors):
            for task in replica.tasks:
                if task.done() and not _was_killed(task.exception()):
                    task.result()


def _was_killed(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_was_killed(each) for each in error.exceptions)
    return error is None or isinstance(error, Killed)
