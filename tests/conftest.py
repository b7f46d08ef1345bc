"""What holds for every test."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # it ships no annotations

# The machine is shared: how long an example takes says nothing of the code.
settings.register_profile("lockstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lockstep")

# The rooms whose files take longest, so that the workers end together.
_FIRST = ("scenarios", "faults", "e2e", "unit/service", "integration", "contracts")

# The second asks for the bundles that the first had made, of the same service: both are one worker's.
_TOGETHER = {"tests/scenarios/test_determinism.py", "tests/scenarios/test_trees.py"}


def pytest_configure() -> None:
    """Every service that is started tries the interpreters on PATH; a version manager's stubs of them take longest."""
    folders = os.get_exec_path()
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if not any(map(_is_script, _pythons(folder))))


def _pythons(folder: str) -> list[Path]:
    return [path for path in Path(folder).glob("python3.*") if path.suffix[1:].isdigit() and path.is_file()]


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first."""
    items.sort(key=lambda item: _turn(item.path.relative_to(Path(__file__).parent)))


def _turn(path: Path) -> int:
    room = next((room for room in _FIRST if path.is_relative_to(room)), None)
    return len(_FIRST) if room is None else _FIRST.index(room)


class _Together(LoadFileScheduling):  # type: ignore[misc]  # its base has no annotations
    """A file is a worker's, and so are the files that share what is dear."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "together" if file in _TOGETHER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """With `--dist loadfile`; any other way is xdist's own."""
    return _Together(config, log) if config.getoption("dist") == "loadfile" else None
