"""Answers that are no lock, and yet expected: values, kept for a short while so that asking again is cheap."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from packaging.utils import NormalizedName


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person wants to hear; the API calls it a warning.

    Codes: `yanked`, `path-conflict`, `passed-over`, `class-base`, `platform-left-out`, `target-conflict`,
    `metadata-disagrees`, `no-bytecode`, `hold-not-applicable`, `stale`.
    """

    code: str
    message: str
    package: str | None = None


@dataclass(frozen=True, slots=True)
class NoSolution:
    """The engine proved that nothing satisfies the requirements; its explanation, whole and redacted."""

    explanation: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildRequired:
    """A package would have to be built from source, which is not allowed, or cannot be begun here."""

    package: NormalizedName
    version: str
    target: str
    explanation: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """A package's source distribution was to be built, and no wheel that can be taken came of it: the cause in a
    sentence, and the end of what the build printed, redacted."""

    package: NormalizedName
    version: str
    target: str
    cause: str
    log: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetConflict:
    """No one version of these packages serves all the target classes that must agree."""

    packages: tuple[NormalizedName, ...]
    explanation: str
    hints: tuple[str, ...] = ()


Refusal = NoSolution | BuildRequired | BuildFailed | TargetConflict

_NAMES: dict[str, Callable[..., Refusal]] = {
    "no-solution": NoSolution,
    "build-required": BuildRequired,
    "build-failed": BuildFailed,
    "target-conflict": TargetConflict,
}


def refusal_to_json(refusal: Refusal) -> dict[str, Any]:
    """The form in which a refusal is remembered."""
    return {"outcome": next(name for name, kind in _NAMES.items() if kind is type(refusal)), **asdict(refusal)}


def refusal_from_json(fields: Mapping[str, Any]) -> Refusal:
    """The inverse of `refusal_to_json`."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return _NAMES[str(values.pop("outcome"))](**values)
