"""`kill -9` of the service at random moments under load, again and again on one data folder.

`python -m tests.faults.kill_nine --times 100 [--seed N] [--folder DIR]`. After each kill: nothing outlives the service;
every row refers to what is there and every blob is what its name says; the service starts again and sweeps what was
half done; what callers were told before is what they are told now; and a client whose fetch was cut off makes its tree
whole. What is asked for, and after how many answers the kill falls, follow from the seed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.faults.load import Fetcher, Load, Told, ask, download
from tests.faults.orphans import Orphans, adopted
from tests.faults.packages import NAMES, publish
from tests.faults.whole import DataFolder
from tests.support.index import PackageIndex
from tests.support.service import Service

_MOST_ANSWERS = 12
_MOMENT_SECONDS = (0.0, 0.6)
_KILLED_AT_A_CHANGE = (
    0.6  # of the kills under load: at random, one in hundreds would fall between two steps of a commit
)
_CHANGE_SECONDS = (0.0, 0.01)
_PATIENCE_SECONDS = 10.0
_START_SECONDS = (0.3, 1.5)
_KILLED_WHILE_STARTING = 0.15  # of the starts
_ASKED_AGAIN = 10
_DOWNLOADED_AGAIN = 4
_ORPHAN_SECONDS = 10.0  # generous: the kernel ends them at once, but a loaded machine may take its time

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


class Killing:
    """One service on one data folder, killed again and again. Checks raise AssertionError."""

    def __init__(self, folder: Path, index: PackageIndex, orphans: Orphans, seed: int) -> None:
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        environment = {
            "LOCKSTEP_FRESH_FOR": "0s",  # without a workload, every request is work for the engine
            "LOCKSTEP_INTERPRETERS": f"{THIS}={sys.executable}",
            "TMPDIR": str(self._temporary),
        }
        self._seed = seed
        self._chance = random.Random(seed)
        self._index = index
        self._orphans = orphans
        self._service = Service(folder / "data", index_url=index.url, environment=environment)
        self._data = DataFolder(self._service.data)
        self._fetcher = Fetcher(folder)
        self._told = Told()
        self._seen: Counter[str] = Counter()
        self._longest = 0.0

    def run(self, times: int) -> str:
        """Kill it so many times; returns what was seen, in one line."""
        for name in NAMES:
            publish(self._index, name, "1.0")
        self._service.start()
        try:
            number = 0
            while self._seen["kills"] < times:
                number += 1
                self._round(number, times)
            return self._end()
        finally:
            self._service.stop()

    def _round(self, number: int, times: int) -> None:
        publish(self._index, self._chance.choice(NAMES), f"1.{number}")  # something new for those who resolve anew
        load = Load(self._service, self._told, self._fetcher, f"{self._seed} {number}", growth=number // 2)
        self._wait_for_answers(self._chance.randrange(_MOST_ANSWERS + 1))
        if self._chance.random() < _KILLED_AT_A_CHANGE:
            self._wait_for_a_change()
            time.sleep(self._chance.uniform(*_CHANGE_SECONDS))
        else:
            time.sleep(self._chance.uniform(*_MOMENT_SECONDS))
        load.expect_the_end()
        self._service.kill()
        load.join()
        self._look()
        while self._seen["kills"] < times and self._chance.random() < _KILLED_WHILE_STARTING:
            self._kill_while_starting()
            self._look()
        self._service.start()
        self._data.check_swept()
        self._ask_again()

    def _wait_for_answers(self, count: int) -> None:
        """For so many of them, as far as they come."""
        before, deadline = self._told.answers, time.monotonic() + _PATIENCE_SECONDS
        while self._told.answers < before + count and time.monotonic() < deadline:
            time.sleep(0.005)

    def _wait_for_a_change(self) -> None:
        """Until something is begun or done: moves into the store, and rows that tell of them, come right then."""
        before, deadline = self._data.half_done(), time.monotonic() + _PATIENCE_SECONDS
        while self._data.half_done() == before and time.monotonic() < deadline:
            time.sleep(0.0002)

    def _kill_while_starting(self) -> None:
        timer = threading.Timer(
            self._chance.uniform(*_START_SECONDS), lambda: os.kill(self._service.pid, signal.SIGKILL)
        )
        timer.start()
        try:
            self._service.start()
        except AssertionError as ended:
            assert f"ended with {-signal.SIGKILL}" in str(ended), ended
        timer.join()
        assert self._service.wait() == -signal.SIGKILL
        self._seen["of them while starting"] += 1

    def _look(self) -> None:
        """At what a kill leaves."""
        self._seen["kills"] += 1
        self._longest = max(self._longest, self._orphans.assert_none(_ORPHAN_SECONDS))
        self._seen["pieces of work cut off"] += len(self._data.half_done())
        self._assert_right()
        assert list(self._temporary.iterdir()) == [], "left outside of the data folder"
        self._data.check()

    def _ask_again(self) -> None:
        """Some of what callers were told before."""
        with self._service.client() as client:
            for body in self._some(sorted(self._told.pinned), _ASKED_AGAIN):
                ask(client, json.loads(body), self._told)
                self._seen["pins asked again"] += 1
            for bundle in self._some(sorted(self._told.bundles), _DOWNLOADED_AGAIN):
                self._seen["blobs downloaded again"] += download(client, bundle, self._told)
        self._seen["files of fetched trees"] += self._fetcher.check(self._service, self._some([*NAMES], 2))
        self._assert_right()

    def _assert_right(self) -> None:
        assert not self._told.wrong, "\n".join(self._told.wrong)

    def _some(self, things: list[str], most: int) -> list[str]:
        return self._chance.sample(things, min(most, len(things)))

    def _end(self) -> str:
        """All that was ever told, once more."""
        with self._service.client() as client:
            for body in sorted(self._told.pinned):
                ask(client, json.loads(body), self._told)
            for bundle in sorted(self._told.bundles):
                download(client, bundle, self._told)
        self._assert_right()
        assert self._service.stop() == 0
        self._orphans.assert_none(_ORPHAN_SECONDS)
        self._seen["answers"] = self._told.answers
        self._seen["pinned requests"] = len(self._told.pinned)
        counts = ", ".join(f"{count} {what}" for what, count in {**self._seen, **self._data.check()}.items())
        return f"seed {self._seed}: {counts}; the last orphan was gone after {self._longest:.2f} s; nothing dangles"


def kill_nine(times: int, seed: int, folder: Path) -> str:
    """Kill a service `times` times in `folder`; returns what was seen, in one line.

    Raises:
        AssertionError: something was not whole, or not as it was told before.
    """
    with PackageIndex() as index, adopted() as orphans:
        return Killing(folder, index, orphans, seed).run(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one, kept where something is wrong")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="lockstep-kill-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        print(kill_nine(options.times, options.seed, folder), f"({time.monotonic() - started:.0f} s)")
    except BaseException:
        print(f"seed {options.seed}: see {folder}", file=sys.stderr)
        raise
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
