"""What every metadata store keeps to in which namespaces have what. Fixtures as in `metadata_store`."""

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BundleRecord
from tests.contracts.samples import NOON, a_pin, locks


def a(name: str) -> Digest:
    return Digest.of(name.encode())


async def a_bundle(store: MetadataStore, lock: Digest, name: str, *parts: str) -> None:
    record = BundleRecord(lock, "t", "toolchain", a(name), 1, 1, NOON)
    assert await store.artifacts.add_bundle(record, await store.contents.claim([a(name), *map(a, parts)]))


class AccessStoreContract:
    async def test_a_namespace_has_the_locks_that_it_pinned(self, store: MetadataStore) -> None:
        one, two, three = await locks(store, "one", "two", "three")
        await store.pins.add(a_pin(one, extensions=(("t", two),)))
        await store.pins.add(a_pin(two, namespace="bank"))
        had = {
            (namespace, lock): await store.access.has_pinned([namespace], lock)
            for namespace in ("shop", "bank", "other")
            for lock in (one, two, three)
        }
        assert {each for each, has in had.items() if has} == {("shop", one), ("shop", two), ("bank", two)}
        assert await store.access.has_pinned(["other", "bank"], two)
        assert not await store.access.has_pinned([], two)

    async def test_a_namespace_has_the_contents_of_its_locks(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        await a_bundle(store, one, "bundle one", "layer one", "shared")
        await a_bundle(store, two, "bundle two", "layer two", "shared")
        await store.pins.add(a_pin(one))
        await store.pins.add(a_pin(two, namespace="bank"))
        for namespace, mine, others in (("shop", "one", "two"), ("bank", "two", "one")):
            for name in (f"bundle {mine}", f"layer {mine}", "shared"):
                assert await store.access.has_content([namespace], a(name))
            for name in (f"bundle {others}", f"layer {others}", "absent"):
                assert not await store.access.has_content([namespace], a(name))
        assert not await store.access.has_content(["other"], a("shared"))
        assert await store.access.has_content(["other", "bank"], a("layer two"))

    async def test_the_locks_with_a_content(self, store: MetadataStore) -> None:
        one, two = await locks(store, "one", "two")
        await a_bundle(store, one, "bundle one", "layer one", "shared")
        await a_bundle(store, two, "bundle two", "shared")
        assert await store.access.locks_with(a("shared")) == sorted([one, two])
        assert await store.access.locks_with(a("layer one")) == [one]
        assert await store.access.locks_with(a("bundle two")) == [two]
        assert await store.access.locks_with(a("absent")) == []
