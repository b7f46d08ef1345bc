"""Locking runs no package's code, however the package asks for it."""

from pathlib import Path

import pytest
from packaging.pylock import Pylock

from resolver.domain.outcomes import NoSolution
from resolver.domain.ports import Locker
from tests.support.index import PackageIndex
from tests.support.wheels import make_sdist, make_wheel
from tests.unit.engines.conftest import Leftovers, ask, versions


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A file that is there once hostile code has run."""
    return tmp_path / "code-was-run"


@pytest.fixture
def hostile(index: PackageIndex, witness: Path) -> PackageIndex:
    """An index with a hostile sdist; a build would find what it needs."""
    setup_py = f"open({str(witness)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='evil', version='2.0')\n"
    index.add(*make_sdist("evil", "2.0", setup_py=setup_py))
    for name in ("setuptools", "wheel"):
        index.add(*make_wheel(name, "80.0", files={"setuptools/__init__.py": f"open({str(witness)!r}, 'w').close()\n"}))
    return index


async def test_an_sdist_is_never_run(locker: Locker, hostile: PackageIndex, witness: Path) -> None:
    assert isinstance(await locker.lock(ask(hostile, "evil")), NoSolution)
    assert not witness.exists()
    assert hostile.count("/files/evil") == 0


async def test_an_older_wheel_is_taken_before_an_sdist_is_run(
    locker: Locker, hostile: PackageIndex, witness: Path
) -> None:
    hostile.add(*make_wheel("evil", "1.0"))
    assert versions(await locker.lock(ask(hostile, "evil"))) == {"evil": "1.0"}
    assert not witness.exists()


@pytest.mark.parametrize(
    "url",
    [
        "{files}/evil-2.0.tar.gz",
        "git+{files}/evil.git",
        "git+file://{folder}",
        "file://{folder}",
        "{files}/evil-1.0-py3-none-any.whl",
    ],
)
async def test_a_dependency_by_url_is_no_way_in(
    locker: Locker, hostile: PackageIndex, witness: Path, tmp_path: Path, leftovers: Leftovers, url: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "setup.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    (project / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'setup'\nbackend-path = ['.']\n"
    )
    hostile.add(*make_wheel("evil", "1.0"))
    asked = url.format(files=hostile.url.replace("/simple", "/files"), folder=project)
    hostile.add(*make_wheel("innocent", "1.0", requires=[f"evil @ {asked}"]))
    answer = await locker.lock(ask(hostile, "innocent"))
    assert isinstance(answer, NoSolution)
    assert "URL" in answer.explanation
    assert not witness.exists()
    leftovers.assert_none()


async def test_a_constraint_makes_no_url_of_a_package(locker: Locker, hostile: PackageIndex, witness: Path) -> None:
    hostile.add(*make_wheel("evil", "1.0"))
    answer = await locker.lock(ask(hostile, "evil", constraints=["evil[extra]<3"]))
    assert isinstance(answer, Pylock)
    assert not witness.exists()
