"""An engine's cache stays warm, does not grow without end, and is never taken from under a run."""

from pathlib import Path

from resolver.domain.requests import Index
from resolver.engines.cache import EngineCache
from resolver.engines.uv import UvLocker
from tests.support.index import PackageIndex
from tests.support.wheels import make_wheel
from tests.unit.engines.conftest import ask, versions

INDEXES = (Index("one", "https://packages.example.com/simple"),)
OTHERS = (Index("two", "https://packages.example.com/simple"),)


def fill(cache: Path, size: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "page").write_bytes(bytes(size))


async def test_within_the_limit_the_next_run_and_the_next_process_find_it(tmp_path: Path) -> None:
    async with EngineCache(tmp_path, 1000, every=0).part(INDEXES) as first:
        fill(first, 1000)
    cache = EngineCache(tmp_path, 1000, every=0)
    async with cache.part(INDEXES) as again, cache.part(OTHERS) as other:
        assert again == first != other
        assert (again / "page").exists()


async def test_beyond_it_the_next_run_starts_anew_and_the_old_one_goes(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 1000, every=0)
    async with cache.part(INDEXES) as first:
        fill(first, 1001)
    assert not first.exists()
    async with cache.part(INDEXES) as second:
        assert second != first


async def test_a_run_keeps_its_part_to_its_end(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 1000, every=0)
    async with cache.part(INDEXES) as slow:
        async with cache.part(INDEXES) as quick:
            fill(quick, 1001)
        async with cache.part(INDEXES) as later:
            assert later != slow == quick
        assert (slow / "page").exists()
    assert not slow.exists()


async def test_a_part_that_another_process_is_in_stays(tmp_path: Path) -> None:
    here, there = EngineCache(tmp_path, 1000, every=0), EngineCache(tmp_path, 1000, every=0)
    async with there.part(INDEXES) as first:
        fill(first, 1001)
        async with here.part(INDEXES):
            pass
        assert (first / "page").exists()
        async with here.part(INDEXES) as second:
            assert second != first
    assert not first.exists()


async def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    async with EngineCache(tmp_path).part(INDEXES) as first:
        fill(first, 1)
    newer = first.with_name("3")
    fill(newer, 1)
    async with EngineCache(tmp_path).part(INDEXES) as found:
        assert found == newer
    assert not first.exists()


async def test_uv_answers_on_with_a_cache_that_is_always_too_large(tmp_path: Path) -> None:
    with PackageIndex() as index:
        index.add(*make_wheel("demo", "1.0"))
        uv = UvLocker(tmp_path / "cache", cache_limit=0, timeout=60)
        for _ in range(3):
            assert versions(await uv.lock(ask([Index("one", index.url)], "demo"))) == {"demo": "1.0"}
    [place] = (tmp_path / "cache").iterdir()
    assert {path.name for path in place.iterdir() if path.is_dir()} == {"1"}  # it is not looked at again so soon
