"""Which layers are begun before their lock is known, in which order, and when no more of them."""

import asyncio
from collections.abc import Callable

from packaging.pylock import Pylock
from packaging.utils import NormalizedName

from resolver.domain.errors import IndexUnavailable
from resolver.domain.ports import Project, WheelReference
from resolver.domain.requests import Index
from resolver.service.head_start import HeadStart
from tests.unit.service.parts import INDEX, picked

OTHER = Index("other", "https://other.example.com/simple")


class Pages:
    """Project pages (resolver.domain.ports.ProjectPages): who has what. `asked` notes the names."""

    def __init__(self, **indexes: Index) -> None:
        self._indexes = indexes
        self.asked: list[str] = []

    async def project(self, name: NormalizedName, indexes: tuple[Index, ...]) -> Project | None:
        self.asked.append(name)
        if name == "down":
            raise IndexUnavailable("pypi", name, "it is down")
        return Project(name, self._indexes[name], ()) if name in self._indexes else None


class Layers:
    """Notes which layers are begun; each ends when it is told to. Their wheels are here at once, or only then."""

    def __init__(self, *, are_near: bool = True) -> None:
        self._are_near = are_near
        self.begun: list[str] = []
        self.of: dict[str, str] = {}
        self._ends: list[asyncio.Event] = []

    def begin(self, wheel: WheelReference, python: str, fetched: Callable[[], None]) -> "asyncio.Task[bool]":
        if self._are_near:
            fetched()
        self.begun.append(wheel.name)
        self.of[wheel.name] = wheel.index.name
        self._ends.append(asyncio.Event())
        return asyncio.get_running_loop().create_task(self._ends[-1].wait())

    async def end_one(self) -> None:
        self._ends.pop(0).set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_largest_are_begun_first_and_no_more_than_may_be_under_way() -> None:
    pages, layers = Pages(), Layers()
    head_start = HeadStart(pages, layers.begin, parallel=2)
    async with head_start.given(picked(small=1, large=9, unknown=None, middle=5), "3.12", (INDEX,)):
        await settle()
        assert layers.begun == ["large", "middle"]
        await layers.end_one()
        assert layers.begun == ["large", "middle", "small"]
        await layers.end_one()
        await layers.end_one()
        assert layers.begun == ["large", "middle", "small", "unknown"]
    assert pages.asked == []


async def test_after_the_block_nothing_is_begun_but_what_was_goes_on() -> None:
    layers = Layers()
    head_start = HeadStart(Pages(), layers.begin, parallel=1)
    async with head_start.given(picked(first=2, second=1), "3.12", (INDEX,)):
        await settle()
    await settle()
    assert layers.begun == ["first"]
    # What went on still counts for who comes next.
    async with head_start.given(picked(third=1), "3.12", (INDEX,)):
        await settle()
        assert layers.begun == ["first"]
        await layers.end_one()
        assert layers.begun == ["first", "third"]


async def test_the_block_waits_for_the_first_wheel_if_it_comes_soon() -> None:
    layers = Layers(are_near=False)
    head_start = HeadStart(Pages(), layers.begin, parallel=9)
    for comes in (True, False):
        block = asyncio.create_task(empty_block(head_start, picked(large=9, small=1)))
        await settle()
        assert not block.done()
        if comes:
            await layers.end_one()
            await settle()
            assert block.done()
        await block


async def test_where_there_is_nothing_to_begin_the_block_waits_for_nothing() -> None:
    block = asyncio.create_task(empty_block(HeadStart(Pages(), Layers().begin, parallel=9), picked()))
    await settle()
    assert block.done()


async def empty_block(head_start: HeadStart, lock: Pylock) -> None:
    async with head_start.given(lock, "3.12", (INDEX,)):
        pass


async def test_where_there_are_several_indexes_the_wheel_is_of_the_one_that_has_the_project() -> None:
    pages, layers = Pages(here=INDEX, there=OTHER), Layers()
    head_start = HeadStart(pages, layers.begin, parallel=9)
    async with head_start.given(picked(down=9, here=3, there=2, nowhere=1), "3.12", (INDEX, OTHER)):
        await settle()
    assert layers.of == {"here": "pypi", "there": "other"}
