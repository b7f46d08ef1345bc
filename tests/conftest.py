"""What holds for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machine is shared: how long an example takes says nothing of the code.
settings.register_profile("lockstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lockstep")

# The rooms whose files take longest, so that the workers end together.
_FIRST = ("scenarios", "faults", "e2e", "unit/service", "integration", "contracts")


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
