"""Tags, documents and referrers on real stores: what is kept, what is made again, what this process cannot make."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from resolver.domain.errors import Busy, DamagedLayer, InvalidWheel, NotFound
from resolver.domain.layers import BuiltLayer
from resolver.domain.locks import Lock
from resolver.service.contents import Contents
from resolver.service.delegation import Elsewhere
from resolver.service.images import Images
from resolver.service.leases import Alone
from resolver.service.lock_book import LockBook
from resolver.service.materialise import Materialising
from resolver.service.uses import ClaimedWheels, Uses
from storage.content import Digest
from tests.unit.service.keeping import RULES, Keeping, keeping
from tests.unit.service.parts import TARGET, Builder, lock_of

TAG = "cp312-glibc"
WORKLOAD = "shop/checkout"
LOCK = lock_of("a", "b")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keeping(tmp_path) as started:
        yield started


def images_of(kept: Keeping, builder: Builder | None = None, exclusive: Any = None) -> Images:
    """As a new process: nothing is remembered."""
    every = RULES.grace / 4
    uses = Uses(kept.store.artifacts, kept.store.workloads, every=every, clock=kept.clock)
    wheels = ClaimedWheels(kept.wheels, kept.store.contents, every=every, clock=kept.clock)
    materialising = Materialising(
        *(kept.blobs, kept.store.artifacts, kept.store.contents, uses, kept.healing, wheels),
        *(builder or Builder(), {}, kept.root.parent, exclusive or Alone()),
    )
    contents = Contents(kept.blobs, kept.store.artifacts, kept.healing)
    return Images(
        *(kept.blobs, kept.store.images, kept.store.contents, contents),
        *(LockBook(kept.store.locks), materialising, uses),
        every=timedelta(0),
    )


async def collect_all(kept: Keeping) -> None:
    await kept.collect()
    kept.time += RULES.grace * 2
    await kept.collect()


async def referrers(images: Images, digest: Digest, repository: str = WORKLOAD) -> list[Digest]:
    return [document.descriptor.digest for document in await images.referrers(repository, digest)]


async def test_a_tag_has_a_bundle_made_that_is_not_there(kept: Keeping) -> None:
    await kept.pin(LOCK)
    images = images_of(kept)
    assert await images.tags(WORKLOAD) == [TAG]
    tagged = await images.tagged(WORKLOAD, TAG)
    [entry] = tagged.fields["manifests"]
    assert entry["digest"] == (await kept.bundle(LOCK)).digest
    assert await images.stored(WORKLOAD, tagged.descriptor.digest) == tagged


async def test_another_process_has_the_same_bytes(kept: Keeping) -> None:
    await kept.pin(LOCK)
    first, second = images_of(kept), images_of(kept)
    tagged = await first.tagged(WORKLOAD, TAG)
    found = await referrers(first, tagged.descriptor.digest)
    assert await second.stored("bundles", tagged.descriptor.digest) == tagged
    assert await second.tagged(WORKLOAD, TAG) == tagged
    assert await referrers(second, tagged.descriptor.digest) == found
    assert (await second.stored(WORKLOAD, found[0])).fields["subject"]["digest"] == tagged.descriptor.digest


async def test_documents_are_kept_as_long_as_their_bundle(kept: Keeping) -> None:
    await kept.pin(LOCK)
    images = images_of(kept)
    tagged = await images.tagged(WORKLOAD, TAG)
    [about_index] = await referrers(images, tagged.descriptor.digest)
    [about_bundle] = await referrers(images, Digest(tagged.fields["manifests"][0]["digest"]))
    documents = {tagged.descriptor.digest, about_index, about_bundle, LOCK.digest}
    assert documents <= await kept.digests()

    kept.time += RULES.used * 2
    await collect_all(kept)
    assert documents <= await kept.digests(), "a pin holds the bundle"
    checked = await kept.check()
    assert (checked.faults, checked.garbage) == ([], 0)

    await kept.pin(lock_of("c"), revision="r2")
    await kept.pin(lock_of("d"), revision="r3")
    await collect_all(kept)
    assert not documents & await kept.digests(), "no revision that counts has it any more"
    again = images_of(kept)
    with pytest.raises(NotFound):
        await again.stored(WORKLOAD, tagged.descriptor.digest)
    assert await referrers(again, tagged.descriptor.digest) == []


async def test_a_document_that_is_gone_is_made_again(kept: Keeping) -> None:
    await kept.pin(LOCK)
    images = images_of(kept)
    tagged = await images.tagged(WORKLOAD, TAG)
    await kept.blobs.delete(tagged.descriptor.digest)
    assert await images.tagged(WORKLOAD, TAG) == tagged
    assert await images.stored(WORKLOAD, tagged.descriptor.digest) == tagged


async def test_equal_bundles_of_two_locks_have_both_for_referrers(kept: Keeping) -> None:
    other = Lock.parse(LOCK.content.replace(b'created-by = "lockstep"', b'created-by = "lockstep "'))
    await kept.pin(LOCK)
    await kept.pin(other, workload="other")
    images = images_of(kept)
    one = await images.tagged(WORKLOAD, TAG)
    two = await images.tagged("shop/other", TAG)
    bundle = Digest(one.fields["manifests"][0]["digest"])
    assert two.fields["manifests"][0]["digest"] == bundle
    about = [(await images.stored("bundles", digest)).fields for digest in await referrers(images, bundle, "bundles")]
    assert {each["layers"][0]["digest"] for each in about} == {LOCK.digest, other.digest}
    [about_one] = await referrers(images, one.descriptor.digest)
    assert (await images.stored(WORKLOAD, about_one)).fields["layers"][0]["digest"] == LOCK.digest


async def test_a_process_that_does_no_cold_work_shows_what_others_built(kept: Keeping) -> None:
    await kept.pin(LOCK)
    with pytest.raises(Busy):
        await images_of(kept, exclusive=Elsewhere()).tagged(WORKLOAD, TAG)
    built = await images_of(kept).tagged(WORKLOAD, TAG)
    assert await images_of(kept, exclusive=Elsewhere()).tagged(WORKLOAD, TAG) == built


async def test_where_no_machine_has_a_bundle_the_reason_is_told(kept: Keeping) -> None:
    class Refusing(Builder):
        async def build(self, wheel: Path, filename: str, python: str, folder: Path) -> BuiltLayer:
            raise InvalidWheel(filename, "has no RECORD")

    await kept.pin(LOCK)
    with pytest.raises(InvalidWheel):
        await images_of(kept, Refusing()).tagged(WORKLOAD, TAG)


@pytest.mark.parametrize("repository", ["shop/nobody", "shop", "shop/checkout/more", "Shop/checkout", "", "locks/00"])
async def test_there_is_no_such_repository(kept: Keeping, repository: str) -> None:
    await kept.pin(LOCK)
    images = images_of(kept)
    for asked in (images.tags(repository), images.require(repository), images.referrers(repository, LOCK.digest)):
        with pytest.raises(NotFound):
            await asked
    assert await kept.store.workloads.unseen(kept.time, 10) == [], "nothing is written down for who asks for nothing"


class TestGroups:
    names = tuple(f"n{number:03}" for number in range(120))

    async def test_a_large_bundle_has_its_small_wheels_in_groups(self, kept: Keeping) -> None:
        lock = lock_of(*self.names)
        record = await kept.bundle(lock)
        manifest = json.loads((kept.file(record.digest)).read_bytes())
        assert len(manifest["layers"]) <= 100
        found = []
        for layer in manifest["layers"]:
            annotations = layer["annotations"]
            found += annotations.get("dev.lockstep.wheels", annotations.get("dev.lockstep.wheel")).split()
        assert found == [wheel.filename for _, wheel in lock.select(TARGET)]
        sizes = sum(layer["size"] for layer in manifest["layers"]) + manifest["config"]["size"]
        assert record.size == sizes + kept.file(record.digest).stat().st_size
        assert (await kept.check()).well

    async def test_groups_are_made_once_and_collected_with_their_bundle(self, kept: Keeping) -> None:
        lock = lock_of(*self.names)
        merges = []

        class Counting(Builder):
            async def merge(self, layers: Any, python: str, folder: Path) -> BuiltLayer:
                merges.append(len(layers))
                return await super().merge(layers, python, folder)

        await kept.pin(lock)
        first = await images_of(kept, Counting()).tagged(WORKLOAD, TAG)
        count = len(merges)
        assert count > 0
        assert await images_of(kept, Counting()).tagged(WORKLOAD, TAG) == first
        assert len(merges) == count
        kept.time += RULES.used * 2
        await kept.pin(lock_of("c"), revision="r2")
        await kept.pin(lock_of("d"), revision="r3")
        await collect_all(kept)
        assert await kept.digests() == set()

    async def test_a_damaged_member_is_built_anew(self, kept: Keeping) -> None:
        lock = lock_of(*self.names)
        first = await kept.bundle(lock)

        class Checking(Builder):
            async def merge(self, layers: Any, python: str, folder: Path) -> BuiltLayer:
                for path, diff_id in layers:
                    if Digest.of(b"plain " + path.read_bytes()) != diff_id:
                        raise DamagedLayer(path.name)
                return await super().merge(layers, python, folder)

        # The groups and the bundle go; what they are made of is still there, and rotten.
        rotten = await kept.store.artifacts.layer(kept_wheel(lock), TARGET.python, "t1")
        assert rotten is not None
        for part in json.loads(kept.file(first.digest).read_bytes())["layers"]:
            if "dev.lockstep.wheels" in part["annotations"]:
                await kept.healing.mend(Digest(part["digest"]), "damaged")
        file = kept.file(rotten.digest)
        file.chmod(0o600)
        file.write_bytes(b"rotten")
        await kept.pin(lock)
        tagged = await images_of(kept, Checking()).tagged(WORKLOAD, TAG)
        assert tagged.fields["manifests"][0]["digest"] == first.digest
        assert (await kept.check()).well


def kept_wheel(lock: Lock) -> Digest:
    """The wheel of a package that is in a group: the sizes here are equal, so the last by name are."""
    _, wheel = lock.select(TARGET)[-1]
    return Digest.from_hex(wheel.hashes["sha256"])
