"""Resolving and building before anybody asks, so that what a Pod asks for is there."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from resolver.domain.errors import InvalidRequest, UnsupportedTarget
from resolver.domain.outcomes import Refusal
from resolver.domain.requests import Policy, ResolveRequest
from resolver.domain.targets import TargetEnvironment
from resolver.service.asked import Asked, Recent
from resolver.service.delegation import Answering
from resolver.service.progress import Progress
from resolver.service.requests import Requests
from resolver.service.resolve import Answer
from resolver.threads import parsing

Outcome = Literal["hot", "built", "resolved", "stale", "failed"]

_NAME_CHARACTERS = 100
_ANY = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")

_Target = tuple[str, str]
_Unasked = InvalidRequest | UnsupportedTarget


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be hot, for each of the targets (Python version and platform tag). `name` is for people."""

    name: str
    requirements: str | Sequence[str]
    targets: Sequence[tuple[str, str]]
    constraints: str | Sequence[str] | None = None
    indexes: Sequence[str] | None = None
    policy: Policy = field(default_factory=Policy)
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Warmed:
    """How an entry fared for one target.

    `hot`: nothing was to be done · `built`: a fresh lock was there, its bundle is by now · `resolved`: a new lock and
    its bundle · `stale`: an older lock, because an index could not be reached · `failed`: `failure` says why.
    """

    name: str
    python: str
    platform: str
    outcome: Outcome
    seconds: float
    answer: Answer | None = None
    failure: Refusal | Exception | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    target: _Target
    request: ResolveRequest | _Unasked


class Warming:
    """Asks as a caller without a workload would: what is fresh is left alone, the rest goes through the same
    single-flight, bounds and stores. At most `parallel` requests at a time, in all of this process, so that Pods find
    room beside it."""

    def __init__(self, resolving: Answering, requests: Requests, asked: Asked, *, parallel: int) -> None:
        self._resolving = resolving
        self._requests = requests
        self._asked = asked
        self._turns = asyncio.Semaphore(parallel)

    async def warm(self, entries: Sequence[Entry], recent: Recent | None, progress: Progress) -> list[Warmed]:
        """How each entry fared for each of its targets, then what was asked for lately; one that fails stops no other.

        Raises what the store raises, where it cannot say what was asked for lately.
        """
        wanted = [each for entry in entries for each in await parsing(self._each_target, entry)]
        if recent is not None:
            named = [each.request for each in wanted if isinstance(each.request, ResolveRequest)]
            wanted += [_recently(request) for request in await self._asked.most(recent, named)]
        progress.enter("warming", total=len(wanted))
        return await asyncio.gather(*(self._counted(each, progress) for each in wanted))

    def _each_target(self, entry: Entry) -> list[_Wanted]:
        try:
            request = self._requests.parse(
                requirements=entry.requirements,
                constraints=entry.constraints,
                target=_ANY,
                indexes=entry.indexes,
                policy=entry.policy,
                workload=None,
                namespace=entry.namespace,
            )
        except InvalidRequest as failure:
            return [_Wanted(entry.name, target, failure) for target in entry.targets]
        return [_Wanted(entry.name, target, _aimed(request, target)) for target in entry.targets]

    async def _counted(self, wanted: _Wanted, progress: Progress) -> Warmed:
        warmed = await self._one(wanted)
        progress.step()
        return warmed

    async def _one(self, wanted: _Wanted) -> Warmed:
        request = wanted.request
        if not isinstance(request, ResolveRequest):
            return Warmed(wanted.name, *wanted.target, "failed", 0.0, failure=request)
        async with self._turns:
            started, clock = datetime.now(UTC), time.perf_counter()
            answer, failure = await self._answer(request)
            seconds = time.perf_counter() - clock
        outcome = _outcome(answer, started) if answer else "failed"
        return Warmed(wanted.name, request.target.python, request.target.platform, outcome, seconds, answer, failure)

    async def _answer(self, request: ResolveRequest) -> tuple[Answer | None, Refusal | Exception | None]:
        try:
            found = await self._resolving.answer(request, Progress())
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is this entry's outcome, and told as that
            return None, failure
        return (found, None) if isinstance(found, Answer) else (None, found)


def _aimed(request: ResolveRequest, target: _Target) -> ResolveRequest | UnsupportedTarget:
    try:
        return replace(request, target=TargetEnvironment.from_platform(*target))
    except UnsupportedTarget as failure:
        return failure


def _recently(request: ResolveRequest) -> _Wanted:
    told = ", ".join(line.canonical for line in request.requirements) or "nothing"
    short = told if len(told) <= _NAME_CHARACTERS else told[:_NAME_CHARACTERS] + "…"
    return _Wanted(f"recent: {short}", (request.target.python, request.target.platform), request)


def _outcome(answer: Answer, started: datetime) -> Outcome:
    if answer.outcome in ("resolved", "stale"):
        return answer.outcome
    return "built" if answer.bundle.created >= started else "hot"
