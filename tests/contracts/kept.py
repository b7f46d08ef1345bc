"""Contents that records need, and what a collection does with them: what the suites of retention are made of."""

from collections.abc import Sequence
from datetime import timedelta

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BundleRecord, ContentRecord, Keep, LayerRecord
from tests.contracts.samples import NOON

HOUR = timedelta(hours=1)
LATER = NOON + 10 * HOUR
NOTHING = Keep(revisions=0, used_after=LATER)


def a(name: str) -> Digest:
    return Digest.of(name.encode())


def a_layer(wheel: str, toolchain: str = "t1") -> LayerRecord:
    return LayerRecord(
        wheel=a(wheel),
        python="3.12",
        toolchain=toolchain,
        digest=a(f"{wheel} layer {toolchain}"),
        size=10,
        diff_id=a(f"{wheel} tar"),
        tar_size=20,
        unpacked_size=20,
        listing=a(f"{wheel} listing"),
        has_pth=False,
        has_bytecode=True,
    )


def a_bundle(lock: Digest, name: str, toolchain: str = "t1") -> BundleRecord:
    return BundleRecord(lock, "cp312-x", toolchain, a(name), 1, 1, NOON)


async def add(store: MetadataStore, bundle: BundleRecord, layers: Sequence[LayerRecord] = ()) -> set[Digest]:
    """Write the layers and a bundle of them, as building it does; returns all contents that it holds."""
    for layer in layers:
        claims = await store.contents.claim([layer.digest, layer.listing])
        assert await store.artifacts.add_layer(layer, claims)
    parts = [bundle.digest, a("config"), *(layer.digest for layer in layers)]
    assert await store.artifacts.add_bundle(bundle, await store.contents.claim(parts))
    await store.contents.claim([layer.wheel for layer in layers])
    return {*parts, *(layer.listing for layer in layers), *(layer.wheel for layer in layers)}


async def every(store: MetadataStore) -> list[ContentRecord]:
    return await store.retention.page(None, 1000)


async def marked(store: MetadataStore) -> set[Digest]:
    return {record.digest for record in await every(store) if record.marked is not None}


async def remove(store: MetadataStore, digests: Sequence[Digest]) -> set[Digest]:
    async with store.retention.removing(digests, LATER) as going:
        return {record.digest for record in going}
