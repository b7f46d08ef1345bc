"""A circuit breaker for each index: while one does not answer, nobody waits for it.

That a request failed does not say that the index is down: it may be one broken package. So the breaker asks the index
itself, something small, and goes by that; once open it asks again every few seconds, and closes at the first answer.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from resolver.domain.errors import IndexUnavailable
from resolver.domain.ports import IndexProbe
from resolver.domain.requests import Index
from resolver.single_flight import SingleFlight

log = structlog.get_logger(__name__)


class IndexHealth:
    """Which indexes answer. `tell(name, up)` hears of every change; `offline` asks none, ever."""

    def __init__(
        self,
        probe: IndexProbe,
        *,
        tell: Callable[[str, bool], None] = lambda name, up: None,
        ask_again: float = 5.0,
        believe: float = 15.0,
        offline: bool = False,
    ) -> None:
        self._probe = probe
        self._tell = tell
        self._ask_again = ask_again
        self._believe = believe
        self._offline = offline
        self._answered: dict[str, float] = {}
        self._down: dict[str, str] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._asking: SingleFlight[str, str | None] = SingleFlight()

    @property
    def down(self) -> list[str]:
        """The names of the indexes that do not answer."""
        return sorted(self._down)

    def require(self, indexes: Iterable[Index], about: str) -> None:
        """Go on only if all of them may be asked. Raises IndexUnavailable, at once."""
        for index in indexes:
            if self._offline:
                raise IndexUnavailable(index.name, about, "the service is set to ask no index (network: offline)")
            if index.name in self._down:
                raise IndexUnavailable(index.name, about, f"it did not answer lately: {self._down[index.name]}")

    async def check(self, indexes: Iterable[Index], about: str, believe: float | None = None) -> None:
        """As `require`, but asks those that did not answer in the last `believe` seconds. Raises IndexUnavailable."""
        believe = self._believe if believe is None else believe
        for index in indexes:
            self.require([index], about)
            if time.monotonic() - self._answered.get(index.name, float("-inf")) > believe:
                await self.suspect(index)
                self.require([index], about)

    def answered(self, indexes: Iterable[Index]) -> None:
        """They were just of use."""
        for index in indexes:
            self._answered[index.name] = time.monotonic()

    async def suspect(self, index: Index) -> None:
        """Something failed that may be the index's fault: ask it, and open its breaker if it is."""
        if self._offline or index.name in self._down:
            return
        fault = await self._asking.do(index.name, lambda: self._probe.fault(index))
        if fault is None:
            self.answered([index])
            return
        if index.name in self._down:
            return
        self._down[index.name] = fault
        self._tell(index.name, False)
        log.warning("index.down", index=index.name, cause=fault)
        watcher = asyncio.create_task(self._watch(index))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, index: Index) -> None:
        while True:
            await asyncio.sleep(self._ask_again)
            fault = await self._probe.fault(index)
            if fault is None:
                break
            self._down[index.name] = fault
        del self._down[index.name]
        self.answered([index])
        self._tell(index.name, True)
        log.info("index.up", index=index.name)

    async def close(self) -> None:
        """Stop asking."""
        for watcher in list(self._watchers):
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._asking.close()
