"""What locking wheels alone hides from a person, brought to light.

Wheels-only resolving silently passes over a release that has only a source distribution for the target, and calls a
set unsolvable whose packages merely have no wheel. The engine's words nominate packages; the index decides.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import (
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from resolver.domain.locks import PackageFacts
from resolver.domain.outcomes import BuildRequired, NoSolution, Notice
from resolver.domain.ports import Project, ProjectFile, ProjectPages
from resolver.domain.requests import Policy, Question, RequirementLine
from resolver.domain.requirements import parse_requirement
from resolver.domain.targets import TargetEnvironment
from resolver.service.facts import Pages, Picks

_NOMINATED = re.compile(r"[`'\"]?([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[^\]]*\])?[`'\"]?")
_SPEAKS_OF_WHEELS = re.compile(r"(?i)wheel|build|source|binary|distribution")
_MOST_NOMINEES = 24
_REMEMBERED = 4096


@dataclass(slots=True)
class _Release:
    """The files of one version. What they are is read only where it is asked for: a project can have thousands, and
    few of its versions matter."""

    files: list[str] = field(default_factory=list)

    @property
    def sdist(self) -> bool:
        return any(not name.endswith(".whl") for name in self.files)

    def usable(self, tags: frozenset[Tag]) -> bool:
        return any(name.endswith(".whl") and not tags.isdisjoint(_wheel_tags(name)) for name in self.files)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The newest allowed version of a package has sdists and no wheel for the target; `taken` was locked instead."""

    name: NormalizedName
    newest: Version
    taken: Version
    target: TargetEnvironment


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which versions a question allows of a package."""

    specifier: SpecifierSet = field(default_factory=SpecifierSet)

    def among(self, versions: Iterable[Version], policy: Policy) -> list[Version]:
        """Those of the versions, newest first. Pre-releases as PEP 440 has it: only where asked for, or where there
        is nothing else."""
        prereleases = True if policy.prereleases or self.specifier.prereleases else None
        return sorted(self.specifier.filter(versions, prereleases=prereleases), reverse=True)


def allowed(lines: Sequence[RequirementLine], name: NormalizedName, target: TargetEnvironment) -> Allowed:
    """What these requirements and constraints, as far as their markers hold for the target, allow of a package."""
    specifier = SpecifierSet()
    for line in lines:
        if line.name == name and target.holds(line.requirement.marker):
            specifier &= line.requirement.specifier
    return Allowed(specifier)


def passed_over(
    project: Project, taken: Version, versions: Allowed, target: TargetEnvironment, policy: Policy
) -> PassedOver | None:
    """Whether the newest allowed version of the project was passed over for want of a wheel."""
    if not _has_newer(project.files, taken):
        return None  # as most often: to sort thousands of files is spared
    releases = _releases(project.files, target, policy)
    tags = frozenset(target.tags)
    for version in versions.among(releases, policy):
        if version <= taken or releases[version].usable(tags):
            return None
        if releases[version].sdist:
            return PassedOver(project.name, version, taken, target)
    return None


async def explain(
    pages: ProjectPages, question: Question, target: TargetEnvironment, outcome: NoSolution
) -> NoSolution | BuildRequired:
    """`build-required` where a package that the question or the engine's explanation names has sdists and no wheel
    that the target can use; the engine's own outcome otherwise. Raises what reading a project page raises."""
    direct = {line.name for line in question.requirements}
    named = [name for name in _nominees(outcome) if name not in direct]
    for name in [*sorted(direct), *named][:_MOST_NOMINEES]:
        project = await pages.project(name, question.indexes)
        if project is None:
            continue
        if any(wheel.name == name and wheel.serves(target.name) for wheel in question.built):
            continue  # it has a wheel by now; whatever is the matter, it is not that
        lines = [*question.requirements, *question.constraints]
        specifier = allowed(lines, name, target).specifier
        for held, bound in question.held:
            specifier &= bound if held == name else SpecifierSet()
        asked = specifier & _depended_on(outcome, name)
        newest = await asyncio.to_thread(_only_sdists, project, Allowed(asked), target, question.policy)
        if newest is None and asked != specifier:
            newest = await asyncio.to_thread(_only_sdists, project, Allowed(specifier), target, question.policy)
        if newest is not None:
            return BuildRequired(
                package=name,
                version=str(newest),
                target=target.name,
                explanation=outcome.explanation,
                # That its engine builds nothing is not what a person can change.
                hints=outcome.hints if question.policy.builds == "never" else (),
            )
    return outcome


def _nominees(outcome: NoSolution) -> list[NormalizedName]:
    lines = [line for line in (outcome.explanation, *outcome.hints) for line in line.splitlines()]
    words = (
        match[1]
        for line in lines
        if _SPEAKS_OF_WHEELS.search(line)
        for match in _NOMINATED.finditer(_before_versions(line))
    )
    return list(dict.fromkeys(canonicalize_name(word) for word in words if len(word) > 1))


def _before_versions(line: str) -> str:
    # Only a word that a version, a quote or an extra follows or surrounds is a package's name.
    return " ".join(re.findall(r"`[^`]+`|[A-Za-z0-9][\w.\-]*(?=\s?[=<>!~]=?|\[)", line)).replace("`", " ")


def _depended_on(outcome: NoSolution, name: NormalizedName) -> SpecifierSet:
    """What others ask of the package, in the engine's words: which of its versions would have to be built."""
    spelled = re.escape(name).replace("\\-", "[-_.]+")
    asked = re.compile(rf"(?:depends? on|requirement) {spelled}(?:\[[^\]]*\])?(?P<specifier>[<>=!~][^\s;()]*)", re.I)
    specifier = SpecifierSet()
    for match in asked.finditer(outcome.explanation):
        try:
            specifier &= SpecifierSet(match["specifier"].rstrip(".,"))
        except InvalidSpecifier:  # the end of a sentence, not of a specifier
            continue
    return specifier


def _only_sdists(project: Project, versions: Allowed, target: TargetEnvironment, policy: Policy) -> Version | None:
    releases = _releases(project.files, target, policy)
    choice = versions.among(releases, policy)
    tags = frozenset(target.tags)
    if any(releases[version].usable(tags) for version in choice):
        return None
    return next((version for version in choice if releases[version].sdist), None)


def _releases(files: Sequence[ProjectFile], target: TargetEnvironment, policy: Policy) -> dict[Version, _Release]:
    python = target.markers["python_full_version"]
    releases: dict[Version, _Release] = {}
    for file in files:
        if file.yanked is not None or not _in_time(file, policy) or not _for_python(file.requires_python, python):
            continue
        version = _version(file.filename)
        if version is not None:
            releases.setdefault(version, _Release()).files.append(file.filename)
    return releases


def _has_newer(files: Sequence[ProjectFile], taken: Version) -> bool:
    versions = map(_parsed_version, {_version_text(file.filename) for file in files})
    return any(version is not None and version > taken for version in versions)


def _version(filename: str) -> Version | None:
    """The version in a file's name; None for old uploads that installers pass over too, and eggs and the like."""
    return _parsed_version(_version_text(filename))


def _version_text(filename: str) -> str:
    """What stands in a file's name where a version does; "" where none has a place."""
    if filename.endswith(".whl"):
        # PEP 427: {distribution}-{version}(-{build tag})?-{python tag}-{abi tag}-{platform tag}.whl
        parts = filename.split("-")
        return parts[1] if len(parts) in (5, 6) else ""
    # PEP 625: {distribution}-{version}.tar.gz; before it, sdists were zips too.
    for suffix in (".tar.gz", ".zip"):
        if filename.endswith(suffix):
            name, _, version = filename.removesuffix(suffix).rpartition("-")
            return version if name else ""
    return ""


@lru_cache(_REMEMBERED)
def _parsed_version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _wheel_tags(filename: str) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:  # old uploads: installers pass over them too
        return frozenset()


def _in_time(file: ProjectFile, policy: Policy) -> bool:
    if policy.exclude_newer is None:
        return True
    return file.upload_time is not None and file.upload_time <= policy.exclude_newer


@lru_cache(_REMEMBERED)  # the files of a project have few different ones
def _for_python(requires_python: str | None, python: str) -> bool:
    if not requires_python:
        return True
    try:
        return SpecifierSet(requires_python).contains(python, prereleases=True)
    except ValueError:  # not PEP 440; installers ignore such a bound
        return True


def _describe(found: PassedOver) -> Notice:
    """What a person hears of a version that was passed over."""
    return Notice(
        code="passed-over",
        package=found.name,
        message=f"{found.name} {found.newest} has no wheel for {found.target}, only a source distribution; "
        f"{found.taken} was locked instead",
    )


def hidden(
    question: Question,
    picks: Picks,
    pages: Pages,
    facts: Mapping[NormalizedName, PackageFacts],
) -> BuildRequired | list[Notice]:
    """BuildRequired where a requirement asked for directly was passed over; notices for transitive ones."""
    held = {name for name, _ in question.held}
    direct = {line.name for line in question.requirements}
    askers = _askers(facts)
    notices: dict[tuple[str, str], Notice] = {}
    for target, pylock in picks.items():
        here = {package.name for package in pylock.packages}
        for package in pylock.packages:
            if package.name in held or package.version is None or package.name not in pages:
                continue
            asked = [(facts[asker].extras, asks) for asker, asks in askers[package.name] if asker in here]
            versions = _allowed(question, package.name, target, asked)
            found = passed_over(pages[package.name], package.version, versions, target, question.policy)
            if found is None:
                continue
            notice = _describe(found)
            if package.name in direct:
                return BuildRequired(
                    package=package.name,
                    version=str(found.newest),
                    target=target.name,
                    explanation=notice.message,
                    hints=(f"to take the older one knowingly, require {package.name}=={found.taken}",),
                )
            notices[package.name, target.name] = notice
    return list(notices.values())


def _allowed(
    question: Question,
    name: NormalizedName,
    target: TargetEnvironment,
    asked: Iterable[tuple[Sequence[str], Requirement]],
) -> Allowed:
    """What the question and those that require the package, each with its active extras, allow of it."""
    specifier = allowed([*question.requirements, *question.constraints], name, target).specifier
    for extras, requirement in asked:
        if any(target.holds(requirement.marker, extra) for extra in ("", *extras)):
            specifier &= requirement.specifier
    return Allowed(specifier)


def _askers(
    facts: Mapping[NormalizedName, PackageFacts],
) -> Mapping[NormalizedName, list[tuple[NormalizedName, Requirement]]]:
    """Who requires a package, and how; every text is parsed once."""
    found = defaultdict[NormalizedName, list[tuple[NormalizedName, Requirement]]](list)
    for asker, said in facts.items():
        for requirement in _parsed(said.requires):
            found[canonicalize_name(requirement.name)].append((asker, requirement))
    return found


def _parsed(texts: Iterable[str]) -> Iterable[Requirement]:
    for text in texts:
        try:
            yield parse_requirement(text)
        except ValueError:  # the engine passed over it too, or there would be no lock
            continue
