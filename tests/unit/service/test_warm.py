"""Warming around a resolver that does as it is told: bounds, outcomes, progress."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from resolver.domain.errors import InvalidRequest, UnsupportedTarget
from resolver.domain.outcomes import NoSolution, Refusal
from resolver.domain.requests import Index, ResolveRequest
from resolver.service.asked import Asked
from resolver.service.progress import Progress
from resolver.service.requests import Requests
from resolver.service.resolve import Answer, Resolving
from resolver.service.warm import Entry, Warmed, Warming
from storage.metadata.store import SqlMetadataStore

REQUESTS = Requests([Index("pypi", "https://packages.example.com/simple")])
TARGETS = [("3.12", "musllinux_1_2_x86_64"), ("3.13", "manylinux_2_28_aarch64")]
REFUSED = NoSolution("because")


class Resolver:
    """Answers each request with a refusal, or as told for its first requirement, once it is `open`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.failures: dict[str, Exception] = {}

    async def answer(self, request: ResolveRequest, progress: Progress) -> Answer | Refusal:
        name = request.requirements[0].name
        self.asked.append(f"{name} {request.target.name}")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if name in self.failures:
            raise self.failures[name]
        return REFUSED


@pytest.fixture
def resolver() -> Resolver:
    return Resolver()


@pytest.fixture
async def warming(resolver: Resolver, tmp_path: Path) -> AsyncIterator[Warming]:
    metadata = await SqlMetadataStore.open(f"sqlite:///{tmp_path}/lockstep.db")
    asked = Asked(metadata.asked, REQUESTS, [])
    yield Warming(cast(Resolving, resolver), REQUESTS, asked, parallel=3)
    await metadata.close()


def entries(*names: str, targets: Sequence[tuple[str, str]] = TARGETS[:1]) -> list[Entry]:
    return [Entry(name, name, targets) for name in names]


async def until(progress: Progress, done: int) -> None:
    async with asyncio.timeout(20):
        while progress.stage != "warming" or progress.done < done:
            await asyncio.sleep(0.001)


def told(warmed: Sequence[Warmed]) -> list[tuple[str, str, str]]:
    return [(each.name, each.platform, each.outcome) for each in warmed]


async def test_no_more_at_a_time_than_its_bound_whoever_asks(warming: Warming, resolver: Resolver) -> None:
    one, two = Progress(), Progress()
    first = asyncio.create_task(warming.warm(entries(*"abcdefgh"), None, one))
    second = asyncio.create_task(warming.warm(entries(*"ijklmnop"), None, two))
    await until(one, 0)
    await until(two, 0)
    while resolver.under_way < 3:
        await asyncio.sleep(0.001)
    assert (one.total, two.total) == (8, 8)
    resolver.open.set()
    assert [len(await each) for each in (first, second)] == [8, 8]
    assert resolver.most_under_way == 3
    assert len(resolver.asked) == 16


async def test_every_target_of_every_entry_in_order(warming: Warming, resolver: Resolver) -> None:
    resolver.open.set()
    warmed = await warming.warm(entries("a", "b", targets=TARGETS), None, progress := Progress())
    assert told(warmed) == [(name, platform, "failed") for name in "ab" for _, platform in TARGETS]
    assert [each.failure for each in warmed] == [REFUSED] * 4
    assert progress.to_json() == {"stage": "warming", "done": 4, "total": 4}


async def test_a_platform_is_told_as_its_class(warming: Warming, resolver: Resolver) -> None:
    resolver.open.set()
    [warmed] = await warming.warm(entries("a", targets=[("3.12.4", "manylinux2014_amd64")]), None, Progress())
    assert (warmed.python, warmed.platform) == ("3.12", "manylinux_2_17_x86_64")


async def test_what_fails_stops_nothing(warming: Warming, resolver: Resolver) -> None:
    resolver.open.set()
    resolver.failures["b"] = RuntimeError("a bug")
    targets = [("3.12", "win_amd64"), *TARGETS[:1]]
    asked = [*entries("a", "-e .", "b"), Entry("nowhere", "c", TARGETS[:1], indexes=["x"])]
    warmed = await warming.warm([*asked, *entries("d", targets=targets)], None, Progress())
    assert [type(each.failure) for each in warmed] == [
        NoSolution,
        InvalidRequest,
        RuntimeError,
        InvalidRequest,
        UnsupportedTarget,
        NoSolution,
    ]
    assert [name[0] for name in resolver.asked] == ["a", "b", "d"]


async def test_the_end_of_the_service_ends_it(warming: Warming, resolver: Resolver) -> None:
    task = asyncio.create_task(warming.warm(entries(*"abcdefgh"), None, progress := Progress()))
    await until(progress, 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert resolver.under_way == 0
