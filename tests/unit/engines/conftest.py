"""A real index, both engines in folders of their own, and an eye on what they leave behind."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName

from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Index, Policy, Question, RequirementLine
from resolver.domain.targets import TargetEnvironment
from resolver.engines.pip import PipLocker
from resolver.engines.uv import UvLocker
from tests.support.index import PackageIndex

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as index:
        yield index


@dataclass(frozen=True)
class Leftovers:
    """Where the engines' runs have their folders, and the processes that live in one."""

    folder: Path

    def processes(self) -> list[list[str]]:
        """The command lines of the processes whose home is in the folder. The dead that nobody reaped have none."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                environment = (process / "environ").read_bytes() if process.name.isdigit() else b""
                if f"HOME={self.folder}/".encode() in environment:
                    found.append((process / "cmdline").read_bytes().decode().split("\0"))
            except OSError:  # it ended while we looked
                continue
        return found

    def assert_none(self) -> None:
        assert list(self.folder.iterdir()) == []
        for _ in range(500):  # what was killed takes a moment to die
            if not self.processes():
                return
            time.sleep(0.01)
        raise AssertionError(self.processes())


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leftovers:
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return Leftovers(folder)


@pytest.fixture
def uv(tmp_path: Path) -> UvLocker:
    return UvLocker(tmp_path / "uv-cache", timeout=60, http_timeout=1, retries=0)


@pytest.fixture
def pip(tmp_path: Path) -> PipLocker:
    return PipLocker({HERE: Path(sys.executable)}, tmp_path / "pip-cache", timeout=60, http_timeout=1, retries=0)


@pytest.fixture(params=["uv", "pip"])
def locker(request: pytest.FixtureRequest) -> UvLocker | PipLocker:
    engine: UvLocker | PipLocker = request.getfixturevalue(request.param)
    return engine


def ask(
    index: PackageIndex | Sequence[Index],
    *requirements: str,
    platform: str = "manylinux_2_28_x86_64",
    python: str = HERE,
    constraints: Sequence[str] = (),
    hashes: dict[str, set[str]] | None = None,
    held: Sequence[tuple[NormalizedName, SpecifierSet]] = (),
    policy: Policy | None = None,
) -> Question:
    """A question for one target; `hashes` are those of a requirement's line."""
    return Question(
        requirements=tuple(
            RequirementLine(Requirement(text), frozenset((hashes or {}).get(text, ())), number)
            for number, text in enumerate(requirements, 1)
        ),
        constraints=tuple(RequirementLine(Requirement(text), line=n) for n, text in enumerate(constraints, 1)),
        target=TargetEnvironment.from_platform(python, platform),
        indexes=(Index("main", index.url_with_auth),) if isinstance(index, PackageIndex) else tuple(index),
        policy=policy or Policy(),
        held=tuple(held),
    )


def versions(answer: Pylock | NoSolution) -> dict[str, str]:
    assert isinstance(answer, Pylock), answer
    return {package.name: str(package.version) for package in answer.packages}


def wheels(answer: Pylock | NoSolution) -> list[str]:
    """The wheels' filenames; a package without exactly one is an error."""
    assert isinstance(answer, Pylock), answer
    return [wheel.filename for package in answer.packages for [wheel] in [package.wheels or ()]]
