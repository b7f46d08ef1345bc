"""Answers that are no lock, and yet expected: values, kept for a short while so that asking again is cheap."""

from dataclasses import dataclass

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
    """A package would have to be built from source, which locking does not do."""

    package: NormalizedName
    version: str
    target: str
    explanation: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetConflict:
    """No one version of these packages serves all the target classes that must agree."""

    packages: tuple[NormalizedName, ...]
    explanation: str
    hints: tuple[str, ...] = ()


Refusal = NoSolution | BuildRequired | TargetConflict
