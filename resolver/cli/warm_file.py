"""The warm file: YAML, checked whole before anything is asked, with every fault at its place.

A document has `targets` (defaults), `entries` and `recent`; contract.md draws one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from resolver.client.errors import BadUsage
from resolver.domain.errors import InvalidRequest, UnsupportedTarget
from resolver.domain.redaction import redact
from resolver.domain.requirements import parse_constraints, parse_requirements
from resolver.domain.targets import TargetEnvironment

_OUR_OWN_FAULT = "Value error, "

Place = tuple[str | int, ...]


def read(path: Path) -> dict[str, Any]:
    """What the file asks for, as `POST /v1/warm` takes it.

    Raises:
        BadUsage: the file cannot be read, or is no warm file; a line for each of its faults.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, yaml.SafeLoader)
        document = yaml.safe_load(text)
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise BadUsage(f"{path} is not YAML{place}: {redact(error.problem or '')}") from None
    except (yaml.YAMLError, RecursionError, ValueError):  # ValueError: a time that is none, or not UTF-8
        raise BadUsage(f"{path} is not YAML") from None
    faults = [*_repeated(root), *_across(document)]
    try:
        found = _File.model_validate(document, context=path.parent)
    except ValidationError as error:
        found = _File()
        faults += [
            (fault["loc"], _told(fault["type"], fault["msg"]))
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    if faults:
        lines = sorted((_line(root, place), _named(document, place), told) for place, told in faults)
        raise BadUsage(
            f"{path} is no warm file", tuple(f"line {line}: {place}{redact(told)}" for line, place, told in lines)
        )
    return found.body()


def _word(value: object) -> object:
    # YAML reads 3.10 as a number, which is 3.1.
    if not isinstance(value, str):
        raise ValueError("not a word: put it in quotes")  # noqa: TRY004 - pydantic tells ValueErrors as faults
    return value


def _text(value: object) -> object:
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise ValueError("neither text nor a list of requirements")
    return value


def _requirements(value: str | list[str]) -> str | list[str]:
    try:
        parse_requirements(value)
    except InvalidRequest as error:
        raise ValueError(_of_line(error)) from None
    return value


def _constraints(value: str | list[str]) -> str | list[str]:
    try:
        parse_constraints(value)
    except InvalidRequest as error:
        raise ValueError(_of_line(error)) from None
    return value


def _of_line(error: InvalidRequest) -> str:
    return f"its line {error.line}: {error.reason}" if error.line else error.reason


def _content(name: str, info: ValidationInfo) -> str | list[str]:
    folder = Path(info.context or "")
    try:
        return _requirements((folder / name).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8") from None


Word = Annotated[str, BeforeValidator(_word)]
Text = Annotated[str | list[str], BeforeValidator(_text)]


class _Strict(BaseModel, extra="forbid"):
    pass


class _Target(_Strict):
    python: Word
    platform: Word

    @model_validator(mode="after")
    def _is_a_class(self) -> Self:
        try:
            TargetEnvironment.from_platform(self.python, self.platform)
        except UnsupportedTarget as error:
            raise ValueError(str(error)) from None
        return self


class _Entry(_Strict):
    """`requirements_file` holds the file's content once it is read."""

    name: Word
    requirements: Annotated[Text, AfterValidator(_requirements)] | None = None
    requirements_file: Annotated[Word, AfterValidator(_content)] | None = None
    constraints: Annotated[Text, AfterValidator(_constraints)] | None = None
    targets: list[_Target] | None = None
    indexes: list[Word] | None = None
    namespace: Word | None = None
    exclude_newer: AwareDatetime | None = None
    prereleases: bool = False

    def body(self, defaults: list[_Target]) -> dict[str, Any]:
        told = self.model_dump(mode="json", exclude_none=True, exclude={"requirements_file", "targets"})
        if self.requirements_file is not None:
            told["requirements"] = self.requirements_file
        return {**told, "targets": [target.model_dump() for target in self.targets or defaults]}


class _Recent(_Strict):
    days: float = Field(gt=0, le=90)
    limit: int = Field(ge=1, le=1000)


class _File(_Strict):
    targets: list[_Target] = []
    entries: list[_Entry] = []
    recent: _Recent | None = None

    def body(self) -> dict[str, Any]:
        recent = {"recent": self.recent.model_dump()} if self.recent else {}
        return {"entries": [entry.body(self.targets) for entry in self.entries], **recent}


def _across(document: object) -> Iterator[tuple[Place, str]]:
    """What is wrong between fields, each of which may be right."""
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, list):
        return
    names = set()
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            continue
        place = ("entries", number)
        if (entry.get("requirements") is None) == (entry.get("requirements_file") is None):
            yield place, "needs `requirements` or `requirements_file`, one of them"
        if not entry.get("targets") and not document.get("targets"):
            yield place, "has no `targets`, and the file has no defaults"
        name = entry.get("name")
        if isinstance(name, str) and name in names:
            yield (*place, "name"), "another entry has this name"
        names.add(name if isinstance(name, str) else None)


def _repeated(root: yaml.Node | None) -> Iterator[tuple[Place, str]]:
    """Keys that stand twice in a mapping, of which YAML's reader would take the last."""
    waiting: list[tuple[Place, yaml.Node | None]] = [((), root)]
    seen = set()
    while waiting:
        place, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [((*place, number), each) for number, each in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            waiting += [((*place, key), each) for key, (_, each) in zip(keys, node.value, strict=True)]
            yield from (((*place, key), "stands here twice") for key in sorted(set(keys)) if keys.count(key) > 1)


def _told(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "no such field"
        case "model_type":
            return "is no mapping of names to values"
        case _:
            return message.removeprefix(_OUR_OWN_FAULT)


def _line(root: yaml.Node | None, place: Place) -> int:
    """The line that the place is on, or the nearest around it."""
    line = root.start_mark.line if root else 0
    node = root
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if not found:
                break
            line, node = found[-1][0].start_mark.line, found[-1][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _named(document: object, place: Place) -> str:
    """The place for a person: an entry by its name, where it has one."""
    parts, within = [], place
    match place, document:
        case ("entries", int(number), *rest), {"entries": [*entries]}:
            name = entries[number].get("name") if isinstance(entries[number], dict) else None
            parts, within = [f"entry {name!r}" if isinstance(name, str) else f"entry {number + 1}"], tuple(rest)
    if within:
        parts.append(".".join(str(step) for step in within))
    return f"{', '.join(parts)}: " if parts else ""
