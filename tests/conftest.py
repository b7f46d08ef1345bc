"""What holds for every test."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The machine is shared: how long an example takes says nothing of the code.
settings.register_profile("lockstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lockstep")

# The rooms whose files take longest, so that the workers end together.
_FIRST = ("scenarios", "faults", "e2e", "unit/service", "integration", "contracts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first."""
    items.sort(key=lambda item: _turn(item.path.relative_to(Path(__file__).parent)))


def _turn(path: Path) -> int:
    room = next((room for room in _FIRST if path.is_relative_to(room)), None)
    return len(_FIRST) if room is None else _FIRST.index(room)
