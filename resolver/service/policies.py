"""Policy around an engine and around the layer builder, each one a wrapper: bounded, measured."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.pylock import Pylock

from resolver.domain.errors import Busy
from resolver.domain.layers import BuiltLayer
from resolver.domain.outcomes import NoSolution
from resolver.domain.ports import LayerBuilder, Locker
from resolver.domain.requests import Question
from storage.content import Digest

_RETRY_AFTER = 5.0


class Bounded:
    """At most `parallel` runs at once, at most `queue` waiting for their turn."""

    def __init__(self, locker: Locker, *, parallel: int, queue: int) -> None:
        self._locker = locker
        self._turns = asyncio.Semaphore(parallel)
        self._queue = queue
        self._waiting = 0

    @property
    def name(self) -> str:
        """The engine's."""
        return self._locker.name

    async def lock(self, question: Question) -> Pylock | NoSolution:
        """As the locker; raises Busy where the queue is full."""
        if self._waiting >= self._queue:
            raise Busy("resolving", _RETRY_AFTER)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._locker.lock(question)
        finally:
            self._turns.release()


class Measured:
    """Tells `observe` the engine's name and the seconds that each run took."""

    def __init__(self, locker: Locker, observe: Callable[[str, float], None]) -> None:
        self._locker = locker
        self._observe = observe

    @property
    def name(self) -> str:
        """The engine's."""
        return self._locker.name

    async def lock(self, question: Question) -> Pylock | NoSolution:
        """As the locker."""
        started = time.perf_counter()
        try:
            return await self._locker.lock(question)
        finally:
            self._observe(self.name, time.perf_counter() - started)


class MeasuredLayers:
    """Tells `observe` the seconds that each layer took, its turn included."""

    def __init__(self, builder: LayerBuilder, observe: Callable[[float], None]) -> None:
        self._builder = builder
        self._observe = observe

    def toolchain(self, python: str) -> str:
        """The builder's."""
        return self._builder.toolchain(python)

    def has_interpreter(self, python: str) -> bool:
        """The builder's."""
        return self._builder.has_interpreter(python)

    async def build(self, wheel: Path, filename: str, python: str, folder: Path) -> BuiltLayer:
        """As the builder."""
        started = time.perf_counter()
        try:
            return await self._builder.build(wheel, filename, python, folder)
        finally:
            self._observe(time.perf_counter() - started)

    async def build_pth_hook(self, python: str, folder: Path) -> BuiltLayer:
        """As the builder."""
        return await self._builder.build_pth_hook(python, folder)

    async def merge(self, layers: Sequence[tuple[Path, Digest]], python: str, folder: Path) -> BuiltLayer:
        """As the builder."""
        return await self._builder.merge(layers, python, folder)
