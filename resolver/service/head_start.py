"""Layers begun as soon as an engine has picked their wheels, while what else a lock says is still being read.

To read it keeps this process busy, and to build layers others: so the first wheel goes to them before that begins.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from packaging.pylock import Package, Pylock

from resolver.domain.errors import IndexUnavailable
from resolver.domain.ports import ProjectPages, WheelReference
from resolver.domain.requests import Index

_LEAD = 0.3
"""Seconds that the reading waits for the first wheel. What is far away takes longer, and leaves this process idle."""


class Begin(Protocol):
    """Begins the layer of a wheel for a Python, which belongs to nobody; whoever wants it later finds it done, or
    joins. `fetched` is called once the wheel is here, if it was this call that had it fetched."""

    def __call__(self, wheel: WheelReference, python: str, fetched: Callable[[], None], /) -> "asyncio.Task[object]":
        """See above."""
        ...


class HeadStart:
    """Begins layers that are likely to be wanted, at most `parallel` of them at a time, whoever asked.

    Nothing relies on it. A lock that is refused in the end leaves wheels and layers that no bundle names, which a
    collection removes; what fails is found out again, and told, by who needs it.
    """

    def __init__(self, pages: ProjectPages, begin: Begin, *, parallel: int) -> None:
        self._pages = pages
        self._begin = begin
        self._slots = asyncio.Semaphore(parallel)

    @asynccontextmanager
    async def given(self, picked: Pylock, python: str, indexes: tuple[Index, ...]) -> AsyncIterator[None]:
        """While the block runs, begin the layers of what was picked; afterwards, no more of them. It is entered once
        the first of their wheels is here, or does not come soon."""
        first = asyncio.Event()
        beginning = asyncio.create_task(self._all(picked, python, indexes, first))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LEAD):
                    await first.wait()
            yield
        finally:
            beginning.cancel()
            await asyncio.wait({beginning})

    async def _all(self, picked: Pylock, python: str, indexes: tuple[Index, ...], first: asyncio.Event) -> None:
        def ended(_: "asyncio.Task[object]") -> None:
            self._slots.release()
            first.set()  # it was there before, or cannot be had

        begun = False
        for package in sorted(picked.packages, key=_size, reverse=True):
            index = await self._index(package, indexes)
            if index is None:
                continue
            for wheel in package.wheels or ():
                await self._slots.acquire()
                self._begin(WheelReference.locked(package, wheel, index), python, first.set).add_done_callback(ended)
                begun = True
        if not begun:
            first.set()

    async def _index(self, package: Package, indexes: tuple[Index, ...]) -> Index | None:
        """Whose file it is, as far as can be told: an engine does not say, but the first that has the project it is."""
        if len(indexes) == 1:
            return indexes[0]
        try:
            project = await self._pages.project(package.name, indexes)
        except IndexUnavailable:  # told by who reads the page for the lock
            return None
        return project.index if project else None


def _size(package: Package) -> int:
    # The largest take the longest: begun last, they would be waited for alone.
    return sum(wheel.size or 0 for wheel in package.wheels or ())
