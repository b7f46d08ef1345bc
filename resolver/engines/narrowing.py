"""From what an engine found to one wheel a package, the same whichever engine was asked.

An engine may choose a version of which the target can install no wheel (uv knows no older musl than 1.2), or none
with a hash that was asked for. That version is then left out and the engine asked again, a bounded number of times.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from packaging.pylock import Package, PackageWheel, Pylock, PylockSelectError
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName
from packaging.version import Version

from resolver.domain.errors import EngineFailed, TimedOut
from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Question, RequirementLine, public_url
from resolver.engines.files import applicable

ROUNDS = 20

Ask = Callable[[Question], Awaitable[Pylock | NoSolution]]
"""One run of an engine: a lock with the wheels that it found, or none."""


@dataclass(frozen=True, slots=True)
class _LeftOut:
    name: NormalizedName
    version: Version
    reason: str

    @property
    def sentence(self) -> str:
        return f"{self.name} {self.version} was left out: {self.reason}."

    @property
    def bound(self) -> tuple[NormalizedName, SpecifierSet]:
        return self.name, SpecifierSet(f"!={self.version}")


async def one_wheel_each(
    ask: Ask,
    question: Question,
    *,
    engine: str,
    timeout: float,  # noqa: ASYNC109 - it is for all attempts together, and becomes an error of ours
) -> Pylock | NoSolution:
    """Ask until every package of the answer has a wheel that the target installs and the hashes allow; the answer
    holds exactly that wheel of each, without credentials, and nothing that tells of the engine.

    Raises:
        TimedOut: the attempts of `engine` together took longer than `timeout` seconds.
    """
    if not applicable(question, question.requirements):
        return _lock([])
    try:
        async with asyncio.timeout(timeout):
            return await _attempts(ask, question)
    except TimeoutError:
        raise TimedOut(engine, timeout) from None


async def _attempts(ask: Ask, question: Question) -> Pylock | NoSolution:
    left_out: list[_LeftOut] = []
    for _ in range(ROUNDS):
        answer = await ask(replace(question, held=(*question.held, *(entry.bound for entry in left_out))))
        if isinstance(answer, NoSolution):
            return _explained(answer, left_out)
        packages, unusable = _narrow(answer, question)
        if not unusable:
            return _lock(packages)
        left_out += unusable
    return _explained(NoSolution(f"No version fit was found in {ROUNDS} attempts."), left_out)


def _lock(packages: list[Package]) -> Pylock:
    lock = Pylock(
        lock_version=Version("1.0"),
        created_by="lockstep",
        packages=sorted(packages, key=lambda package: package.name),
    )
    lock.validate()
    return lock


def _explained(outcome: NoSolution, left_out: list[_LeftOut]) -> NoSolution:
    if not left_out:
        return outcome
    explanation = "\n".join([*(entry.sentence for entry in left_out), outcome.explanation])
    reasons = dict.fromkeys(f"{entry.name} was left out in some versions: {entry.reason}" for entry in left_out)
    return NoSolution(explanation, (*reasons, *outcome.hints))


def _narrow(answer: Pylock, question: Question) -> tuple[list[Package], list[_LeftOut]]:
    packages: list[Package] = []
    unusable: list[_LeftOut] = []
    for package in answer.packages:
        if package.version is None:
            raise EngineFailed(answer.created_by, f"it took {package.name} from elsewhere than an index", "")
        chosen = _choose(answer, package, question)
        if isinstance(chosen, str):
            unusable.append(_LeftOut(package.name, package.version, chosen))
        else:
            wheel = next((w.wheel for w in question.built_here if w.filename == chosen.filename), None) or _bare(chosen)
            packages.append(Package(name=package.name, version=package.version, wheels=[wheel]))
    return packages, unusable


def _choose(answer: Pylock, package: Package, question: Question) -> PackageWheel | str:
    """The wheel of the package that the target takes, or why there is none."""
    hashed = [wheel for wheel in package.wheels or () if "sha256" in wheel.hashes]
    if not hashed:
        return "its index gives no wheel with a SHA-256"
    found = _selected(answer, package, hashed, question)
    if found is None:
        return f"none of its wheels is for {question.target.name}"
    lines = [
        (field, line)
        for field, all_lines in (("requirements", question.requirements), ("constraints", question.constraints))
        for line in applicable(question, all_lines)
        if line.name == package.name and line.hashes
    ]
    if not lines:
        return found
    allowed = [wheel for wheel in hashed if all(_allowed(wheel, line, question) for _, line in lines)]
    chosen = _selected(answer, package, allowed, question)
    if chosen is None:
        places = " and ".join(f"{field}, line {line.line}" for field, line in lines)
        return f"none of its wheels for {question.target.name} has a hash that is given in {places}"
    return chosen


def _selected(answer: Pylock, package: Package, wheels: list[PackageWheel], question: Question) -> PackageWheel | None:
    if not wheels:
        return None
    alone = Pylock(
        lock_version=answer.lock_version,
        created_by=answer.created_by,
        packages=[Package(name=package.name, version=package.version, wheels=wheels)],
    )
    try:
        [(_, wheel)] = alone.select(environment=question.target.markers, tags=question.target.tags)
    except PylockSelectError:
        return None
    assert isinstance(wheel, PackageWheel)  # noqa: S101 - there is nothing else in this lock
    return wheel


def _has_hash(wheel: PackageWheel, line: RequirementLine) -> bool:
    return any(f"{algorithm}:{value}" in line.hashes for algorithm, value in wheel.hashes.items())


def _allowed(wheel: PackageWheel, line: RequirementLine, question: Question) -> bool:
    """Whether the hashes that the line gives allow the wheel: by its own, or by its sdist's if it was built."""
    built = next((each for each in question.built_here if each.filename == wheel.filename), None)
    if built is None:
        return _has_hash(wheel, line)
    return any(f"sha256:{value}" in line.hashes for value in (built.digest.hex, built.sdist.hashes["sha256"]))


def _bare(wheel: PackageWheel) -> PackageWheel:
    return PackageWheel(
        name=wheel.filename,
        url=public_url(wheel.url or ""),
        upload_time=wheel.upload_time,
        size=wheel.size,
        hashes={"sha256": wheel.hashes["sha256"]},
    )
