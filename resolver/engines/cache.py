"""What an engine keeps of the pages and files that it was served: warm from run to run, and not without end.

    <folder>/v1-<indexes>/<generation>/         the engine's own layout
    <folder>/v1-<indexes>/<generation>.in-use   locked (shared) by each run that is in it, in whatever process

No engine bounds its cache, and to take files from under a run can fail it. So a generation that has grown too large is
left to the runs that are in it, later ones start the next, and whoever comes last removes it.
"""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BufferedWriter
from pathlib import Path

from resolver.domain.requests import Index
from resolver.engines.indexes import cache_folder

LIMIT = 2 << 30
"""Bytes for each list of indexes."""
_EVERY = 600.0
"""Seconds between two looks at how large it is."""


class EngineCache:
    """Hands out folders for an engine's cache. A generation is replaced where it has more than `limit` bytes; that is
    looked at after a run, `every` so many seconds."""

    def __init__(self, folder: Path, limit: int = LIMIT, every: float = _EVERY) -> None:
        self._folder = folder.absolute()
        self._limit = limit
        self._every = every
        self._looked: dict[Path, float] = {}

    @asynccontextmanager
    async def part(self, indexes: Sequence[Index]) -> AsyncIterator[Path]:
        """The cache for a run that asks these indexes, which stays as long as the context is open."""
        place = cache_folder(self._folder, indexes)
        # Not cancelled with the caller: a thread goes on regardless, and the lock that it takes must be given back.
        entering = asyncio.ensure_future(asyncio.to_thread(_enter, place))
        try:
            cache, _ = await asyncio.shield(entering)
            yield cache
        finally:
            await asyncio.wait({entering})
            if entering.exception() is None:
                entering.result()[1].close()
                await asyncio.shield(asyncio.to_thread(self._tidy, place))

    def _tidy(self, place: Path) -> None:
        numbers = _generations(place)
        now = time.monotonic()
        if now - self._looked.get(place, now - self._every) >= self._every:
            self._looked[place] = now
            if _size(place / str(numbers[-1])) > self._limit:
                (place / str(numbers[-1] + 1)).mkdir(exist_ok=True)
                numbers = _generations(place)
        for number in numbers[:-1]:
            _remove(place, number)


def _enter(place: Path) -> tuple[Path, BufferedWriter]:
    """The newest generation, and the lock on it, which goes with the file."""
    place.mkdir(parents=True, exist_ok=True)
    number = max(_generations(place), default=0)
    cache = place / str(number)
    held = _lock_file(place, number).open("ab")
    try:
        # Waits for nobody but who removes it: then it is an old one, and empty again.
        fcntl.flock(held, fcntl.LOCK_SH)
        cache.mkdir(exist_ok=True)
    except BaseException:
        held.close()
        raise
    return cache, held


def _remove(place: Path, number: int) -> None:
    """Remove a generation that no run is in; where one is, that one does it at its end."""
    path = _lock_file(place, number)
    with path.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(place / str(number), ignore_errors=True)
        path.unlink(missing_ok=True)


def _lock_file(place: Path, number: int) -> Path:
    return place / f"{number}.in-use"


def _generations(place: Path) -> list[int]:
    return sorted(int(path.name) for path in place.iterdir() if path.name.isdecimal())


def _size(folder: Path) -> int:
    total = 0
    for inner, _, names in os.walk(folder):  # which passes over a folder that a run in it has just removed
        for name in names:
            try:
                total += os.lstat(os.path.join(inner, name)).st_size  # noqa: PTH118 - a cache has many files
            except FileNotFoundError:  # likewise
                continue
    return total
