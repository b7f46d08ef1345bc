"""Layers begun as soon as an engine has picked their wheels, while what else a lock says is still being read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from packaging.pylock import Package, Pylock

from resolver.domain.errors import IndexUnavailable
from resolver.domain.ports import ProjectPages, WheelReference
from resolver.domain.requests import Index

Begin = Callable[[WheelReference, str], "asyncio.Task[Any]"]
"""Begins the layer of a wheel for a Python, which belongs to nobody; whoever wants it later finds it done, or joins."""


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
        """While the block runs, begin the layers of what was picked; afterwards, no more of them."""
        beginning = asyncio.create_task(self._all(picked, python, indexes))
        try:
            yield
        finally:
            beginning.cancel()
            await asyncio.wait({beginning})

    async def _all(self, picked: Pylock, python: str, indexes: tuple[Index, ...]) -> None:
        for package in sorted(picked.packages, key=_size, reverse=True):
            index = await self._index(package, indexes)
            if index is None:
                continue
            for wheel in package.wheels or ():
                await self._slots.acquire()
                layer = self._begin(WheelReference.locked(package, wheel, index), python)
                layer.add_done_callback(lambda _: self._slots.release())

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
