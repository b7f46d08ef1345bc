"""From a request to a lock: ask the engine, say what it hides, fill in what it leaves out, write it down.

Nothing here runs a package's code: the engine resolves from wheels alone, and METADATA is read as text. Where a source
distribution is all that there is, that is the answer; whoever has built a wheel of it asks again, and shows the wheel.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

from packaging.pylock import Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName
from packaging.version import Version

from resolver.domain.builds import BuiltWheel
from resolver.domain.locks import Lock, compose
from resolver.domain.outcomes import BuildRequired, Notice, Refusal, TargetConflict
from resolver.domain.ports import Locker, ProjectPages, WheelFetcher
from resolver.domain.requests import Question, ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.agreement import Unsolved, agree
from resolver.service.facts import Picks, package_facts, read_pages, sized, yanked
from resolver.service.head_start import HeadStart
from resolver.service.wheels_only import explain, hidden
from resolver.threads import parsing

Attitude = Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class Locked:
    """A fresh lock, and what a person wants to hear of it."""

    lock: Lock
    notices: tuple[Notice, ...] = ()


class Locking:
    """Makes locks. `passed_over` and `target_conflict` say whether such a finding refuses the request or is told
    along with the answer. Without a head start, nothing is begun before the lock is asked for its bundle."""

    def __init__(
        self,
        locker: Locker,
        pages: ProjectPages,
        wheels: WheelFetcher,
        head_start: HeadStart | None,
        *,
        passed_over: Attitude = "refuse",
        target_conflict: Attitude = "refuse",
    ) -> None:
        self._locker = locker
        self._pages = pages
        self._wheels = wheels
        self._head_start = head_start
        self._passed_over = passed_over
        self._target_conflict = target_conflict

    async def lock(
        self, request: ResolveRequest, others: Sequence[TargetEnvironment], built: tuple[BuiltWheel, ...] = ()
    ) -> Locked | Refusal:
        """A lock for the request's target, and for the others with it, at equal versions; of wheels that the indexes
        have, and of those that were built.

        One of the others that has no solution whatever is left out, with a notice: nobody can run there.
        Raises what the ports raise.
        """
        question = _question(request, built)
        targets = [request.target, *others]
        notices: list[Notice] = []
        while True:
            answer = await agree(self._locker, question, targets)
            if isinstance(answer, Unsolved):
                if answer.target == request.target:
                    return await explain(self._pages, question, answer.target, answer.outcome)
                targets.remove(answer.target)
                notices.append(_left_out(answer.target))
            elif isinstance(answer, TargetConflict):
                if self._target_conflict == "refuse":
                    return answer
                targets = [request.target]
                notices.append(_disagreement(answer.packages, request.target))
            else:
                return await self._write(request, question, answer, notices)

    async def extend(
        self,
        request: ResolveRequest,
        versions: Mapping[NormalizedName, Version],
        built: tuple[BuiltWheel, ...] = (),
    ) -> Locked | Refusal:
        """A lock for the request's target in which these versions are held (contract, step 1b)."""
        free = _question(request, built)
        held = replace(free, held=tuple((name, SpecifierSet(f"=={version}")) for name, version in versions.items()))
        answer = await agree(self._locker, held, [request.target])
        if not isinstance(answer, Unsolved | TargetConflict):
            return await self._write(request, held, answer, [])
        if isinstance(answer, Unsolved) and self._target_conflict == "refuse" and request.policy.builds != "never":
            # The version that is held may be one that was built for the other platforms, or can be.
            found = await explain(self._pages, held, request.target, answer.outcome)
            if isinstance(found, BuildRequired):
                return found
        alone = await agree(self._locker, free, [request.target])
        if isinstance(alone, Unsolved):
            return await explain(self._pages, free, request.target, alone.outcome)
        if isinstance(alone, TargetConflict):
            return alone
        differing = _differing(alone[request.target], versions)
        if self._target_conflict == "refuse":
            return TargetConflict(
                packages=differing,
                explanation=f"{request.target} cannot have the versions that this revision is pinned to: "
                + (answer.outcome.explanation if isinstance(answer, Unsolved) else answer.explanation),
                hints=(
                    "start a new revision after a refresh, or require versions that every platform of the workload has",
                ),
            )
        return await self._write(request, free, alone, [_disagreement(differing, request.target)])

    async def _write(
        self, request: ResolveRequest, question: Question, picks: Picks, notices: list[Notice]
    ) -> Locked | Refusal:
        begun = (
            self._head_start.given(picks[request.target], request.target.python, question.indexes)
            if self._head_start
            else nullcontext()
        )
        async with begun:
            return await self._written(request, question, picks, notices)

    async def _written(
        self, request: ResolveRequest, question: Question, picks: Picks, notices: list[Notice]
    ) -> Locked | Refusal:
        pages = await read_pages(self._pages, picks.values(), question.indexes)
        facts, disagreeing = await package_facts(self._wheels, question, picks, pages)
        notices.extend(disagreeing)
        found = await parsing(hidden, question, picks, pages, facts)
        if isinstance(found, BuildRequired) and self._passed_over == "refuse":
            return found
        if isinstance(found, BuildRequired):
            notices.append(Notice("passed-over", found.explanation, found.package))
        else:
            notices.extend(found)
        notices.extend(yanked(picks, pages))
        try:
            lock = await parsing(
                compose,
                requirements=request.requirements,
                constraints=request.constraints,
                picks={target: sized(pylock, pages) for target, pylock in picks.items()},
                facts=facts,
                built=question.built,
            )
        except ValueError as impossible:
            return TargetConflict(packages=(), explanation=str(impossible))
        return Locked(lock, tuple(notices))


def _question(request: ResolveRequest, built: tuple[BuiltWheel, ...]) -> Question:
    return Question(
        request.requirements, request.constraints, request.target, request.indexes, request.policy, built=built
    )


def _differing(pylock: Pylock, versions: Mapping[NormalizedName, Version]) -> tuple[NormalizedName, ...]:
    return tuple(
        package.name for package in pylock.packages if versions.get(package.name, package.version) != package.version
    )


def _left_out(target: TargetEnvironment) -> Notice:
    return Notice("platform-left-out", f"nothing satisfies the requirements on {target}: the lock does not cover it")


def _disagreement(packages: Sequence[NormalizedName], target: TargetEnvironment) -> Notice:
    return Notice(
        "target-conflict",
        f"{target} has other versions than the workload's other platforms of: {', '.join(packages) or 'some packages'}",
    )
