"""One version of each package for all the target classes that must agree.

Engines answer for one target at a time. Where two answers differ in a version, every target is asked again with
that package bounded by the lowest version seen; bounds only ever sink, so this ends, and the result does not depend
on the order of the targets.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.pylock import Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName
from packaging.version import Version

from resolver.domain.outcomes import NoSolution, TargetConflict
from resolver.domain.ports import Locker
from resolver.domain.requests import Question
from resolver.domain.targets import TargetEnvironment

_ROUNDS = 12

Bounds = dict[NormalizedName, SpecifierSet]


@dataclass(frozen=True, slots=True)
class Unsolved:
    """What the engine said for one target class, on its own."""

    target: TargetEnvironment
    outcome: NoSolution


async def agree(
    locker: Locker, question: Question, targets: Sequence[TargetEnvironment]
) -> Mapping[TargetEnvironment, Pylock] | Unsolved | TargetConflict:
    """Lock the question for all the targets at once.

    Unsolved where some target has no solution of its own (the first one in the order given); TargetConflict where
    each has one, but not with equal versions. Raises what the locker raises.
    """
    bounds: Bounds = {}
    for _ in range(_ROUNDS):
        held = (*question.held, *sorted(bounds.items()))
        answers = await asyncio.gather(
            *(locker.lock(replace(question, target=target, held=held)) for target in targets)
        )
        picks: dict[TargetEnvironment, Pylock] = {}
        for target, answer in zip(targets, answers, strict=True):
            if isinstance(answer, NoSolution):
                return _conflict(bounds, target, answer) if bounds else Unsolved(target, answer)
            picks[target] = answer
        differing = _differing(picks)
        if not differing:
            return picks
        bounds.update({name: SpecifierSet(f"<={lowest}") for name, lowest in differing.items()})
    return TargetConflict(
        packages=tuple(sorted(bounds)),
        explanation=f"the targets' versions still differed after {_ROUNDS} rounds of lowering them",
    )


def _differing(picks: Mapping[TargetEnvironment, Pylock]) -> dict[NormalizedName, Version]:
    seen: dict[NormalizedName, set[Version]] = {}
    for pylock in picks.values():
        for package in pylock.packages:
            if package.version is not None:
                seen.setdefault(package.name, set()).add(package.version)
    return {name: min(versions) for name, versions in seen.items() if len(versions) > 1}


def _conflict(bounds: Bounds, target: TargetEnvironment, answer: NoSolution) -> TargetConflict:
    return TargetConflict(
        packages=tuple(sorted(bounds)),
        explanation=f"with one version of each package for all targets, {target} has no solution: {answer.explanation}",
        hints=answer.hints,
    )
