"""The resolver scenarios of astral-sh/packse, read from where they lie beside the project, as package indexes.

Each is a small universe of packages, what is asked of it, and what a right resolver answers. They are data that is not
part of this project: where they are absent, their tests are skipped.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from resolver.domain.targets import PYTHONS
from tests.support.index import PackageIndex
from tests.support.wheels import make_sdist, make_wheel

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "packse"

_ONLY_SDISTS = "the package has source distributions alone"
_NO_FITTING_WHEEL = "the package has no wheel for the target, and a source distribution"

# Satisfiable by building from source alone, and why.
NEEDS_A_BUILD: Mapping[str, str] = {
    "incompatible-python-compatible-override-available-no-wheels": _ONLY_SDISTS,
    "incompatible-python-compatible-override-no-compatible-wheels": _NO_FITTING_WHEEL,
    "incompatible-python-compatible-override-other-wheel": "the version for that Python has source distributions alone",
    "incompatible-python-compatible-override-unavailable-no-wheels": _ONLY_SDISTS,
    "no-wheels": _ONLY_SDISTS,
    "no-wheels-with-matching-platform": _NO_FITTING_WHEEL,
}

# What Lockstep answers otherwise than the scenario wants, and why.
CANNOT_AGREE: Mapping[str, str] = {
    "only-wheels-no-binary": "asks for a resolve without wheels (no_binary), and Lockstep takes wheels alone",
}

_DEFAULT_PYTHON = "3.12"
_MINOR = re.compile(r"\b3\.(?P<minor>\d+)")


@dataclass(frozen=True)
class Scenario:
    """One scenario. `python` is the version that is resolved for; `requires` is what is asked for; `expected` maps the
    packages of the answer to their versions, as far as the scenario says (None: it does not)."""

    name: str
    description: str
    python: str
    requires: tuple[str, ...]
    satisfiable: bool
    expected: Mapping[str, str] | None
    universal: bool
    environment: Mapping[str, Any]
    options: Mapping[str, Any]
    packages: Mapping[str, Mapping[str, Any]]
    later: int

    @property
    def needs_a_build(self) -> bool:
        """Whether only a build from source satisfies it. Locking takes wheels alone: the engine finds no solution, and
        the service says `build-required`."""
        return self.name in NEEDS_A_BUILD

    def publish(self, index: PackageIndex) -> None:
        """Put the scenario's packages on an index."""
        for name, package in self.packages.items():
            for version, release in package["versions"].items():
                for filename, content in self._files(name, version, release):
                    index.add(
                        filename,
                        content,
                        yanked="" if release.get("yanked") else None,
                        requires_python=_shift(release.get("requires_python"), self.later),
                    )

    def _files(self, name: str, version: str, release: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        requires = list(release.get("requires", ()))
        requires_python = _shift(release.get("requires_python"), self.later)
        extras: Mapping[str, Sequence[str]] = release.get("extras", {})
        for extra, dependencies in extras.items():
            requires += [_for_extra(text, extra) for text in dependencies]
        if release.get("wheel", True):
            for tag in release.get("wheel_tags", ["py3-none-any"]):
                yield make_wheel(
                    name, version, requires=requires, requires_python=requires_python, extras=list(extras), tag=tag
                )
        if release.get("sdist", True):
            yield make_sdist(name, version, requires=requires, requires_python=requires_python)


def scenarios() -> list[Scenario]:
    """All scenarios, by name; none where they are absent."""
    return [_read(path) for path in sorted(FOLDER.glob("*/*.toml"))]


def parameters() -> list[Any]:
    """All scenarios as parameters of a test: those that cannot agree are expected to fail, and where there are no
    scenarios, there is one that is skipped."""
    if not FOLDER.is_dir():
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason="no scenarios beside the project"))]
    found = scenarios()
    unknown = {*NEEDS_A_BUILD, *CANNOT_AGREE} - {scenario.name for scenario in found}
    assert not unknown, f"no scenarios of these names: {unknown}"
    return [pytest.param(scenario, id=scenario.name, marks=_marks(scenario)) for scenario in found]


def _marks(scenario: Scenario) -> list[pytest.MarkDecorator]:
    reason = CANNOT_AGREE.get(scenario.name)
    return [] if reason is None else [pytest.mark.xfail(strict=True, reason=reason)]


def _read(path: Path) -> Scenario:
    data = tomllib.loads(path.read_text())
    options = data.get("resolver_options", {})
    environment = data.get("environment", {})
    python = options.get("python") or environment.get("python") or _DEFAULT_PYTHON
    later = _too_old_by(python)
    return Scenario(
        name=data["name"],
        description=data["description"],
        python=_shift(python, later) or python,
        requires=tuple(data["root"]["requires"]),
        satisfiable=data["expected"]["satisfiable"],
        expected=data["expected"].get("packages"),
        universal=options.get("universal", False),
        environment=environment,
        options=options,
        packages=data.get("packages", {}),
        later=later,
    )


def _too_old_by(python: str) -> int:
    """Some scenarios are for a Python that is older than the target classes: all of their Pythons are taken to be that
    much later, which changes nothing between them. (None of these has a marker on it.)"""
    match = _MINOR.match(python)
    assert match is not None, python
    return max(0, int(PYTHONS[0].partition(".")[2]) - int(match["minor"]))


def _shift(pythons: str | None, later: int) -> str | None:
    return pythons and _MINOR.sub(lambda match: f"3.{int(match['minor']) + later}", pythons)


def _for_extra(text: str, extra: str) -> str:
    requirement = Requirement(text)
    condition = f"extra == '{extra}'"
    if requirement.marker is None:
        return f"{text} ; {condition}"
    marker, requirement.marker = requirement.marker, None
    return f"{requirement} ; ({marker}) and {condition}"
