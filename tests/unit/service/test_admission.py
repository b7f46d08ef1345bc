"""Admission around a resolver that does as it is told: what is decided, in what time, and what is started."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from resolver.domain.injection import Delivery, Injected
from resolver.domain.outcomes import NoSolution, Refusal
from resolver.domain.pods import Document, Left
from resolver.domain.requests import Index, ResolveRequest
from resolver.service.admission import Admission
from resolver.service.asked import Asked
from resolver.service.lock_book import LockBook
from resolver.service.observing import Observing
from resolver.service.progress import Progress
from resolver.service.requests import Requests
from resolver.service.resolve import Answer
from resolver.service.warm import Warming
from storage.errors import StorageUnavailable
from storage.metadata.store import SqlMetadataStore
from tests.support.functions import SERVER, function, plain

REQUESTS = Requests([Index("pypi", "https://packages.example.com/simple")])
DELIVERY = Delivery(SERVER, "0" * 64, "pass")
Size = Callable[[ResolveRequest], Awaitable[int | None]]
Make = Callable[..., Admission]


class Resolver:
    """Notes each request, and never answers one unless it is `open`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def answer(self, request: ResolveRequest, progress: Progress) -> Answer | Refusal:
        self.asked.append(f"{request.requirements[0].name} {request.target.name} {request.namespace}")
        await self.open.wait()
        return NoSolution("because")


async def unknown(request: ResolveRequest) -> int | None:
    return None


@pytest.fixture
def resolver() -> Resolver:
    return Resolver()


@pytest.fixture
async def make(resolver: Resolver, tmp_path: Path) -> AsyncIterator[tuple[Make, list[tuple[str, str]]]]:
    store = await SqlMetadataStore.open(f"sqlite:///{tmp_path / 'lockstep.db'}")
    asked = Asked(store.asked, REQUESTS, [])
    told: list[tuple[str, str]] = []
    made: list[Admission] = []

    def make(size: Size = unknown) -> Admission:
        warming = Warming(resolver, REQUESTS, asked, parallel=1000)
        platforms = ["musllinux_1_2_x86_64"]
        made.append(
            Admission(
                DELIVERY,
                REQUESTS,
                warming,
                size,
                Observing(warming, LockBook(store.locks), lambda *_: None),
                platforms=platforms,
                tell=lambda *each: told.append(each),
            )
        )
        return made[-1]

    yield make, told
    for admission in made:
        await admission.close()
    await asked.close()
    await store.close()


def limit(found: Injected | Left) -> Document:
    assert isinstance(found, Injected)
    (volume,) = [each for each in found.pod["spec"]["volumes"] if each["name"] == "lockstep-deps"]
    place = volume["emptyDir"]
    assert isinstance(place, dict)
    return place


async def test_what_is_known_of_a_size_limits_the_volume(make: tuple[Make, list[tuple[str, str]]]) -> None:
    asked: list[ResolveRequest] = []

    async def size(request: ResolveRequest) -> int:
        asked.append(request)
        return 1 << 20

    admission = make[0](size)
    found = await admission.review(function(), "shop", mode="observe", dry_run=False)
    assert limit(found) == {"sizeLimit": "66Mi"}
    (request,) = asked
    assert (request.workload, request.target.python) == (found.workload, "3.12")  # type: ignore[union-attr]  # limit() saw to it


@pytest.mark.parametrize("failure", ["hangs", "fails"])
async def test_a_store_that_does_not_tell_hinders_nobody(
    make: tuple[Make, list[tuple[str, str]]], failure: str
) -> None:
    async def size(request: ResolveRequest) -> int:
        if failure == "fails":
            raise StorageUnavailable("database", "gone")
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(30):
        found = await make[0](size).review(function(), "shop", mode="mutate", dry_run=False)
    assert limit(found) == {}


async def test_a_fault_in_here_leaves_the_pod(make: tuple[Make, list[tuple[str, str]]]) -> None:
    async def size(request: ResolveRequest) -> int:
        raise ZeroDivisionError

    admission, told = make[0](size), make[1]
    found = await admission.review(function(), "shop", mode="mutate", dry_run=False)
    assert isinstance(found, Left)
    assert found.message
    assert told == [("mutate", "failed")]


async def test_warming_is_for_pods_that_are_made_for_real(
    make: tuple[Make, list[tuple[str, str]]], resolver: Resolver
) -> None:
    admission = make[0]()
    target = {"lockstep.dev/python": "3.13", "lockstep.dev/platform": "manylinux_2_28_aarch64"}
    for mode, dry_run in (("mutate", True), ("observe", True)):
        await admission.review(function(), "shop", mode=mode, dry_run=dry_run)  # type: ignore[arg-type]  # both are modes
    await admission.review(plain({"lockstep.dev/requirements": "flask"}), "shop", mode="mutate", dry_run=False)
    assert isinstance(
        await admission.review(
            plain({"lockstep.dev/requirements": "-e ."} | target), "shop", mode="mutate", dry_run=False
        ),
        Left,
    )
    await asyncio.sleep(0.2)
    assert resolver.asked == []  # nothing was to be done, or its target is not known before it runs
    await admission.review(function(), "shop", mode="mutate", dry_run=False)
    while not resolver.asked:
        await asyncio.sleep(0.01)
    assert resolver.asked == ["requests cp312-musllinux_1_2_x86_64 shop"]


async def test_warming_under_way_is_bounded(make: tuple[Make, list[tuple[str, str]]], resolver: Resolver) -> None:
    admission = make[0]()
    for number in range(80):
        found = await admission.review(function(requirements=f"a{number}"), "shop", mode="mutate", dry_run=False)
        assert isinstance(found, Injected)
    while len(resolver.asked) < 64:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(resolver.asked) == 64
