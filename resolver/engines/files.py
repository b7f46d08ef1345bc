"""What a question looks like to an engine: lines of requirements and of constraints, safe to be read by it.

Markers are evaluated here. With one target class at a time they are either true or false, and so neither engine's own
idea of the environment plays a part, nor can what stands in a marker's quotes break a line in two.
"""

import re
from dataclasses import dataclass

from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from resolver.domain.errors import InvalidRequest
from resolver.domain.requests import Question, RequirementLine

# What a name, its extras and PEP 440 specifiers are made of; no blank, no `#`, no `\`, no `${`.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-\[\],<>=!~*+]*")


@dataclass(frozen=True, slots=True)
class RequirementFiles:
    """The text of a requirements file and of a constraints file."""

    requirements: str
    constraints: str


def requirement_files(question: Question) -> RequirementFiles:
    """The files for the question's target: what does not apply to it is left out.

    Raises:
        InvalidRequest: a line says what an index cannot be asked for.
    """
    constraints = [_written(line, "constraints", extras=False) for line in applicable(question, question.constraints)]
    held = [f"{name}{specifier}" for name, specifier in question.held]
    return RequirementFiles(
        _file([_written(line, "requirements", extras=True) for line in applicable(question, question.requirements)]),
        _file(constraints + held),
    )


def applicable(question: Question, lines: tuple[RequirementLine, ...]) -> list[RequirementLine]:
    """Those of the lines whose marker holds for the question's target."""
    return [line for line in lines if question.target.holds(line.requirement.marker)]


def _written(line: RequirementLine, field: str, *, extras: bool) -> str:
    requirement = line.requirement
    if requirement.url is not None:
        raise InvalidRequest("a URL requirement; only package indexes are asked", field=field, line=line.line)
    for specifier in requirement.specifier:
        _check_version(specifier, line, field)
    # A constraint bounds a version and asks for nothing, so its extras say nothing (pip refuses them).
    wanted = sorted(canonicalize_name(extra) for extra in requirement.extras) if extras else []
    specifiers = ",".join(sorted(str(specifier) for specifier in requirement.specifier))
    text = line.name + (f"[{','.join(wanted)}]" if wanted else "") + specifiers
    if not _SAFE.fullmatch(text):
        raise InvalidRequest("neither engine could read this requirement", field=field, line=line.line, text=text)
    return text


def _check_version(specifier: Specifier, line: RequirementLine, field: str) -> None:
    # PEP 440 lets `===` compare any text; an index of today has no version that is not one.
    if specifier.operator == "===":
        try:
            Version(specifier.version)
        except InvalidVersion:
            reason = f"=== asks for {specifier.version!r}, which is no version (PEP 440)"
            raise InvalidRequest(reason, field=field, line=line.line) from None


def _file(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
