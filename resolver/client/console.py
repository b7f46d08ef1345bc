"""What a person sees: plain lines for `kubectl logs`, a bar on a terminal; all of it on standard error."""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_LINE_EVERY = 5.0  # seconds
_BAR_EVERY = 0.1
_BAR_WIDTH = 30


class Console:
    """Says things, each with the seconds since the start. Any thread may."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.terminal = self._stream.isatty()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """One line; what a terminal would obey instead of showing is left out."""
        self._write(f"lockstep: {self.elapsed:6.2f} s  {_printable(text)}\n")

    def draw(self, text: str) -> None:
        """Show the text in the terminal's last line until something else is said."""
        self._write(f"{text}\r")

    def _write(self, text: str) -> None:
        with self._lock:
            self._stream.write(f"\x1b[K{text}" if self.terminal else text)
            self._stream.flush()


class Progress:
    """Bytes that have come, of those that are to come."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._lock = threading.Lock()
        self._every = _BAR_EVERY if console.terminal else _LINE_EVERY
        self._shown = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        """So many more have come; a negative count takes back those of an attempt that failed."""
        with self._lock:
            self.done += count
            now = time.monotonic()
            if now - self._shown < self._every:
                return
            self._shown = now
        amount = f"{size(self.done)} of {size(self._total)}"
        if self._console.terminal:
            filled = min(_BAR_WIDTH, _BAR_WIDTH * self.done // max(1, self._total))
            self._console.draw(f"[{'#' * filled:{_BAR_WIDTH}}] {amount}")
        else:
            self._console.say(amount)


def size(count: int) -> str:
    """Bytes as people read them: `12.3 MB` (powers of ten)."""
    if count < 1000:
        return f"{count} B"
    amount = count / 1000
    for unit in ("kB", "MB"):
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
