"""Brings a bundle's layers into one tree: several at a time, each checked as it streams.

Every layer is unpacked into a folder of its own, as it arrives. Only when all are there, each with its digest
checked, are they moved together in the manifest's order, so that a later layer wins a path that two share whatever
the order of arrival; moving is a few renames a layer.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from resolver.client.arrival import Arrival
from resolver.client.environment import granted_cpus
from resolver.client.errors import CannotWrite
from resolver.client.place import remove
from resolver.client.retries import Abandoned, Passing, persist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from resolver.client.bundle import Layer
    from resolver.client.console import Console, Progress
    from resolver.client.retries import Patience
    from resolver.client.transport import Session

_MOST_WORKERS = 8
_FEWEST_WORKERS = 2  # one receives while the other writes, also on a fraction of a CPU
_WORTH_A_WORKER = 2 * 1024 * 1024  # bytes; what is less arrives sooner than a thread and a connection are made


def deliver(
    session: Session, layers: Sequence[Layer], staging: str, patience: Patience, progress: Progress, console: Console
) -> str:
    """Bring all layers into one tree under the empty folder `staging`; returns its path.

    Raises:
        FetchError: what the first layer that could not be had failed with.
    """
    waiting = deque(sorted(layers, key=lambda layer: -layer.size))  # the longest first: none is left for the end
    failures: list[Exception] = []

    def work(session: Session) -> None:
        try:
            arrival = Arrival(session, patience, progress, console)
            while True:
                try:
                    layer = waiting.popleft()
                except IndexError:
                    return
                _bring(arrival, layer, f"{staging}/{layer.number}", patience, console)
        except Abandoned:
            pass  # the failure that counts is another thread's
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
            patience.abandon()

    worth = 1 + sum(layer.size for layer in layers) // _WORTH_A_WORKER
    count = min(len(layers), worth, _MOST_WORKERS, max(_FEWEST_WORKERS, granted_cpus()))
    others = [session.another() for _ in range(count - 1)]
    threads = [threading.Thread(target=work, args=(other,), daemon=True) for other in others]
    for thread in threads:
        thread.start()
    work(session)
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    try:
        if failures:
            raise failures[0]
        return _merged(layers, staging)
    except OSError as error:
        raise CannotWrite(f"cannot unpack the layers: {error.strerror} ({error.filename or staging})") from error


def _bring(arrival: Arrival, layer: Layer, folder: str, patience: Patience, console: Console) -> None:
    def attempt() -> None:
        os.mkdir(folder)
        try:
            arrival.unpack(layer, folder)
        except Passing:
            remove(folder)
            raise

    persist(attempt, patience, console.say)


def _merged(layers: Sequence[Layer], staging: str) -> str:
    tree = f"{staging}/tree"
    for path in (tree, f"{tree}/site-packages", f"{tree}/bin"):
        os.mkdir(path)
    for layer in layers:
        _move(f"{staging}/{layer.number}", tree)
    return tree


def _move(source: str, destination: str) -> None:
    """Move what is in one folder into another; where both have a path, the one that is moved stays."""
    for name in os.listdir(source):
        moved, there = f"{source}/{name}", f"{destination}/{name}"
        if os.path.isdir(there):
            if os.path.isdir(moved):
                _move(moved, there)
                continue
            remove(there)
        elif os.path.isdir(moved) and os.path.exists(there):
            os.unlink(there)
        os.rename(moved, there)
    os.rmdir(source)
