"""Trying again, within one bound on the time of all of it.

A failure that can pass is a `Passing`, which carries the error that stands once there is no time left to try again.
"""

from __future__ import annotations

import threading
import time

from resolver.client.errors import FetchError, Mismatch, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_FIRST_PAUSE = 0.5  # seconds; doubled with each attempt
_LONGEST_PAUSE = 15.0
_WRONG_BYTES = 3  # a line that garbles passes by then; a store that is wrong does not


class Passing(Exception):
    """An attempt failed in a way that can pass. `final` is the error if it does not; `retry_after` the seconds that
    the other side asked for."""

    def __init__(self, final: FetchError, retry_after: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.retry_after = retry_after


class Abandoned(Exception):
    """Another thread failed for good, so this one need not go on."""


class Patience:
    """The time there is for all of it, shared by all threads."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._abandoned = threading.Event()

    def left(self) -> float:
        """Seconds left, more than none.

        Raises:
            Unavailable: none are left.
            Abandoned: another thread has given up.
        """
        if self._abandoned.is_set():
            raise Abandoned
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unavailable(f"not done within {self.seconds:g} s (--timeout)")
        return left

    def pause(self, seconds: float) -> None:
        """Wait that long, or until another thread gives up. Raises as `left`."""
        self._abandoned.wait(min(seconds, self.left()))
        self.left()

    def abandon(self) -> None:
        """Let every thread stop at its next step."""
        self._abandoned.set()


class Backoff:
    """Pauses between attempts: exponential with full jitter, never shorter than what the other side asked for."""

    def __init__(self, patience: Patience, say: Callable[[str], None]) -> None:
        self._patience = patience
        self._say = say
        self._longest = _FIRST_PAUSE
        self._wrong = 0

    def pause(self, failure: Passing) -> None:
        """Wait after this failure. Raises the error that stands where there is no time left for it, or no sense."""
        import random  # most fetches never fail

        self._wrong += isinstance(failure.final, Mismatch)
        pause = failure.retry_after + random.uniform(0, self._longest)  # noqa: S311 - spreads load, guards nothing
        if self._wrong == _WRONG_BYTES or pause >= self._patience.left():
            raise failure.final from failure
        self._say(f"{failure}; trying again in {pause:.1f} s")
        self._patience.pause(pause)
        self._longest = min(_LONGEST_PAUSE, 2 * self._longest)


def persist(attempt: Callable[[], T], patience: Patience, say: Callable[[str], None]) -> T:
    """What `attempt` returns, once it does.

    Raises:
        FetchError: the attempt failed for good, or in a passing way until no time was left.
    """
    backoff = Backoff(patience, say)
    while True:
        try:
            return attempt()
        except Passing as failure:
            backoff.pause(failure)
