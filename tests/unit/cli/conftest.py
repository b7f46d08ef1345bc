"""A service to ask, and `lockstep` run in this process."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from resolver import cli
from resolver.settings import Settings
from tests.unit.cli.service import Service


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOCKSTEP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `lockstep` with these arguments, and with these programs; `serve` is refused unless it is given."""

    def refuse(settings: Settings) -> int:
        raise AssertionError(f"nothing was to be served, on {settings.listen}")

    def run(*arguments: str, **programs: Callable[..., Any]) -> Ran:
        try:
            code = cli.main(arguments, **{"serve": refuse, **programs})
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def ask(run: Run, service: Service) -> Run:
    """As `run`, of the service."""

    def ask(*arguments: str) -> Ran:
        return run(*arguments, "--server", service.url)

    return ask
