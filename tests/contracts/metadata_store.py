"""What every metadata store keeps to. A backend's tests subclass the suite and give it its fixtures:

- `store`: an empty store
- `another`: a second opener of the same database, as another process would be
"""

import asyncio

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import (
    BundleRecord,
    LayerRecord,
    OperationRecord,
    Resolution,
)
from tests.contracts.access_store import AccessStoreContract
from tests.contracts.build_store import BuildStoreContract
from tests.contracts.image_store import ImageStoreContract
from tests.contracts.job_store import JobStoreContract
from tests.contracts.lease_store import LeaseStoreContract, RefusalStoreContract
from tests.contracts.lock_store import LockStoreContract
from tests.contracts.pin_store import PinStoreContract, WorkloadStoreContract
from tests.contracts.samples import NOON, SECOND, a_pin, locks


class ArtifactStoreContract:
    def layer(self, toolchain: str = "t1", size: int = 5 * 2**30) -> LayerRecord:
        return LayerRecord(
            wheel=Digest.of(b"wheel"),
            python="3.12",
            toolchain=toolchain,
            digest=Digest.of(toolchain.encode()),
            size=size,
            diff_id=Digest.of(b"tar"),
            tar_size=7 * 2**30,
            unpacked_size=6 * 2**30,
            listing=Digest.of(b"listing"),
            has_pth=True,
            has_bytecode=False,
        )

    async def test_layers(self, store: MetadataStore) -> None:
        layer = self.layer()
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") is None
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) is None
        claims = await store.contents.claim([layer.digest, self.layer("t2").digest, layer.listing])
        assert await store.artifacts.add_layer(layer, claims)
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") == layer
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) == layer
        assert await store.artifacts.layer(layer.wheel, "3.13", "t1") is None
        assert await store.artifacts.layer(layer.wheel, "3.12", "t2") is None
        assert await store.artifacts.add_layer(self.layer(size=9), claims)
        assert await store.artifacts.layer(layer.wheel, "3.12", "t1") == self.layer(size=9)
        assert await store.artifacts.add_layer(self.layer("t2"), claims)
        assert await store.artifacts.layer_by_diff_id(layer.diff_id) in (self.layer(size=9), self.layer("t2"))

    async def test_bundles(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "one")
        warnings = ({"code": "yanked", "message": "ünïcode"}, {"code": "path-conflict", "message": "m", "package": "a"})
        bundle = BundleRecord(lock, "cp312-x", "t1", Digest.of(b"manifest"), 2**40, 2**41, NOON, warnings)
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") is None
        assert await store.artifacts.add_bundle(bundle, await store.contents.claim([bundle.digest]))
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") == bundle
        assert await store.artifacts.bundle(lock, "cp313-x", "t1") is None
        other = BundleRecord(lock, "cp312-x", "t1", Digest.of(b"other"), 1, 2, NOON)
        claims = await store.contents.claim([other.digest])
        assert all(await asyncio.gather(*(store.artifacts.add_bundle(other, claims) for _ in range(5))))
        assert await store.artifacts.bundle(lock, "cp312-x", "t1") == other

    async def test_a_bundle_may_come_before_its_lock(self, store: MetadataStore) -> None:
        absent = Digest.of(b"absent")
        bundle = BundleRecord(absent, "t", "c", absent, 1, 1, NOON)
        assert await store.artifacts.add_bundle(bundle, await store.contents.claim([absent]))
        assert await store.artifacts.bundle(absent, "t", "c") == bundle


class OperationStoreContract:
    async def test_an_operation_runs_and_ends(self, store: MetadataStore) -> None:
        running = OperationRecord("id", "resolve", "running", NOON, NOON, {"done": 1, "of": [2, None, "ünïcode"]})
        assert await store.operations.get("id") is None
        await store.operations.put(running)
        assert await store.operations.get("id") == running
        succeeded = OperationRecord("id", "resolve", "succeeded", NOON, NOON + SECOND, {}, {"lock": {"a": 1.5}})
        await store.operations.put(succeeded)
        assert await store.operations.get("id") == succeeded
        failed = OperationRecord("id", "resolve", "failed", NOON, NOON + SECOND, {}, None, {"status": 422})
        await store.operations.put(failed)
        assert await store.operations.get("id") == failed

    async def test_old_operations_are_forgotten(self, store: MetadataStore) -> None:
        for number in range(5):
            await store.operations.put(OperationRecord(str(number), "k", "running", NOON, NOON + number * SECOND))
        assert await store.operations.delete_before(NOON + 3 * SECOND) == 3
        assert await store.operations.delete_before(NOON + 3 * SECOND) == 0
        assert [await store.operations.get(str(number)) is None for number in range(5)] == [True] * 3 + [False] * 2


class MetadataStoreContract(
    BuildStoreContract,
    LockStoreContract,
    PinStoreContract,
    WorkloadStoreContract,
    ArtifactStoreContract,
    AccessStoreContract,
    ImageStoreContract,
    OperationStoreContract,
    LeaseStoreContract,
    RefusalStoreContract,
    JobStoreContract,
):
    async def test_answers_a_ping(self, store: MetadataStore) -> None:
        await store.ping()

    async def test_readers_and_writers_of_two_openers(self, store: MetadataStore, another: MetadataStore) -> None:
        [lock] = await locks(store, "one")

        async def use(opener: MetadataStore, number: int) -> None:
            pin = await opener.pins.add(a_pin(lock, f"r{number}"))
            assert await opener.pins.get("shop", "checkout", f"r{number}", "key") == pin
            await opener.locks.add_resolution(Resolution(f"key{number}", lock, (), NOON))
            await opener.operations.put(OperationRecord(str(number), "k", "running", NOON, NOON))
            assert await opener.operations.get(str(number)) is not None

        await asyncio.gather(*(use(opener, number) for opener in (store, another) for number in range(30)))
        assert len((await store.pins.page(None, None, 100)).items) == 30
        assert len(await another.locks.keys_of(lock)) == 30

    async def test_cancelled_callers_block_nobody(self, store: MetadataStore) -> None:
        [lock] = await locks(store, "one")
        for steps in range(0, 60, 2):
            writing = asyncio.create_task(store.pins.add(a_pin(lock, f"r{steps}", extensions=(("t", lock),))))
            reading = asyncio.create_task(store.pins.page(None, None, 10))
            for _ in range(steps):
                await asyncio.sleep(0)
            writing.cancel()
            reading.cancel()
            await asyncio.wait([writing, reading])
        pin = a_pin(lock, "last", extensions=(("t", lock),))
        assert await store.pins.add(pin) == pin
        page = await store.pins.page(None, None, 100)
        assert all(found.extensions == (("t", lock),) for found in page.items)  # whole or not at all
