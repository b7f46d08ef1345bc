"""What every metadata store keeps to of wheels that were built. Fixtures as in `metadata_store`."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import BuildRecord, Keep
from tests.contracts.samples import NOON

LATER = NOON + timedelta(hours=10)
NOTHING = Keep(revisions=0, used_after=LATER)


def a_build(identifier: str = "one", wheel: bytes = b"built wheel") -> BuildRecord:
    return BuildRecord(
        id=identifier,
        sdist=Digest.of(b"sdist"),
        requirements=Digest.of(b"requirements"),
        target="any",
        builder="build-v1-cp311",
        wheel=Digest.of(wheel),
        filename="a-1.0-py3-none-any.whl",
        size=3 * 2**30,
        reproducible=True,
        created=NOON,
        seconds=1.25,
        log="ünïcode\nand lines",
    )


class BuildStoreContract:
    async def test_the_first_build_stands(self, store: MetadataStore, another: MetadataStore) -> None:
        first, second = a_build(), replace(a_build(wheel=b"another"), reproducible=False)
        assert await store.builds.get(["one"]) == {}
        assert await store.builds.get([]) == {}
        claims = await store.contents.claim([first.wheel, second.wheel])
        assert await store.builds.add(first, claims) == first
        assert await another.builds.add(second, claims) == first
        other = a_build("two", b"another")
        assert await store.builds.add(other, claims) == other
        assert await another.builds.get(["one", "two", "three"]) == {"one": first, "two": other}

    async def test_writers_at_once_agree(self, store: MetadataStore, another: MetadataStore) -> None:
        builds = [a_build(wheel=str(number).encode()) for number in range(10)]
        claims = await store.contents.claim([build.wheel for build in builds])
        stores = (store, another)
        kept = await asyncio.gather(*(stores[n % 2].builds.add(build, claims) for n, build in enumerate(builds)))
        assert len({build.wheel for build in kept if build}) == 1
        assert None not in kept

    async def test_a_wheel_that_went_away_is_not_recorded(self, store: MetadataStore) -> None:
        build = a_build()
        claims = await store.contents.claim([build.wheel])
        await store.retention.mark([build.wheel], NOON)
        assert await store.retention.release([build.wheel], NOTHING, NOON) == [build.wheel]
        assert await store.builds.add(build, claims) is None
        assert await store.builds.get(["one"]) == {}

    async def test_a_built_wheel_is_needed_and_held(self, store: MetadataStore) -> None:
        build = a_build()
        await store.builds.add(build, await store.contents.claim([build.wheel]))
        assert await store.contents.is_needed(build.wheel)
        assert await store.contents.needed(None, 10) == [build.wheel]
        assert await store.retention.held(NOTHING) == {build.wheel}
        await store.retention.mark([build.wheel], NOON)
        assert await store.retention.release([build.wheel], NOTHING, LATER) == []
        assert await store.builds.get(["one"]) == {"one": build}

    async def test_a_damaged_wheel_takes_its_record_with_it(self, store: MetadataStore) -> None:
        build, other = a_build(), a_build("two", b"another")
        claims = await store.contents.claim([build.wheel, other.wheel])
        for each in (build, other):
            await store.builds.add(each, claims)
        async with store.contents.dropping(build.wheel):
            pass
        assert await store.builds.get(["one", "two"]) == {"two": other}
        assert await store.builds.add(build, claims) is None
        assert not await store.contents.is_needed(build.wheel)
