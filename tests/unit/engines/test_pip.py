import os
import platform
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from resolver.domain.errors import InvalidRequest, UnsupportedTarget
from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Index
from resolver.domain.targets import MACHINES, PYTHONS
from resolver.engines.interpreters import discover
from resolver.engines.pip import PipLocker, default_index_url
from tests.support.index import PackageIndex
from tests.support.wheels import make_wheel
from tests.unit.engines.conftest import HERE, ask, versions, wheels

ELSEWHERE = next(machine for machine in MACHINES if machine != platform.machine())


def test_the_default_index_is_one() -> None:
    url = urlsplit(default_index_url())
    assert url.scheme == "https"
    assert url.hostname
    assert "@" not in url.netloc


async def test_another_python_is_refused(pip: PipLocker, index: PackageIndex) -> None:
    other = next(python for python in PYTHONS if python != HERE)
    with pytest.raises(UnsupportedTarget, match=f"no interpreter of Python {other} is at hand.*{HERE}"):
        await pip.lock(ask(index, "foo", python=other))
    assert index.requests == []


async def test_another_machine_is_refused(pip: PipLocker, index: PackageIndex) -> None:
    with pytest.raises(UnsupportedTarget, match="would take its markers from"):
        await pip.lock(ask(index, "foo", platform=f"manylinux_2_28_{ELSEWHERE}"))
    assert index.requests == []


async def test_more_than_one_index_is_refused(pip: PipLocker, index: PackageIndex) -> None:
    with pytest.raises(InvalidRequest, match="dependency confusion"):
        await pip.lock(ask([Index("one", index.url), Index("two", index.url)], "foo"))
    assert index.requests == []


async def test_a_marker_that_the_patch_release_decides_is_refused(pip: PipLocker, index: PackageIndex) -> None:
    patch = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    index.add(*make_wheel("foo", "1.0", requires=[f"bar ; implementation_version != '{patch}'"]))
    index.add(*make_wheel("bar", "1.0"))
    with pytest.raises(UnsupportedTarget, match=r"foo 1\.0 asks for `bar"):
        await pip.lock(ask(index, "foo"))


async def test_requirements_own_markers_are_the_target_s(pip: PipLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0"))
    assert versions(await pip.lock(ask(index, f"foo ; python_full_version == '{HERE}.0'"))) == {"foo": "1.0"}


async def test_an_interpreter_of_another_version_answers_with_its_markers(tmp_path: Path, index: PackageIndex) -> None:
    places = [os.environ.get("PATH", ""), *map(str, sorted(Path.home().glob(".pyenv/versions/*/bin")))]
    found = await discover(os.pathsep.join(places), {})
    others = {python: entry.path for python, entry in found.items() if python != HERE}
    if not others:
        pytest.skip("no other interpreter than the running one was found")
    python = max(others)
    before = {path: path.stat().st_mtime_ns for path in others[python].resolve().parents[1].rglob("*.pyc")}
    index.add(*make_wheel("foo", "1.0", requires=[f"bar ; python_version == '{python}'"]))
    index.add(*make_wheel("bar", "1.0", tag=f"cp{python.replace('.', '')}-abi3-manylinux_2_17_x86_64"))
    locker = PipLocker(others, tmp_path)
    answer = await locker.lock(ask(index, "foo", python=python))
    assert wheels(answer)[0].startswith("bar-1.0-cp3")
    assert {path: path.stat().st_mtime_ns for path in others[python].resolve().parents[1].rglob("*.pyc")} == before


async def test_a_conflict_is_explained_whole(pip: PipLocker, index: PackageIndex) -> None:
    index.add(*make_wheel("foo", "1.0", requires=["bar<2"]))
    index.add(*make_wheel("baz", "1.0", requires=["bar>=2"]))
    for version in ("1.0", "2.0"):
        index.add(*make_wheel("bar", version))
    answer = await pip.lock(ask(index, "foo", "baz"))
    assert isinstance(answer, NoSolution)
    assert "foo 1.0 depends on bar<2" in answer.explanation
    assert "baz 1.0 depends on bar>=2" in answer.explanation
