"""Brings a bundle's layers into one tree: several at a time, each checked as it streams.

Every layer is unpacked into a folder of its own, as it arrives. Only when all are there, each with its digest
checked, are they moved together in the manifest's order, so that a later layer wins a path that two share whatever
the order of arrival; moving is a few renames a layer.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque

from resolver.client.bundle import Layer, check, plain
from resolver.client.environment import granted_cpus
from resolver.client.errors import CannotWrite, Mismatch
from resolver.client.place import remove
from resolver.client.retries import Abandoned, Passing, persist
from resolver.client.transport import Session
from resolver.client.unpack import InvalidLayer, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from hashlib import _Hash

    from resolver.client.console import Console, Progress
    from resolver.client.retries import Patience
    from resolver.client.transport import Server

_MOST_WORKERS = 8
_FEWEST_WORKERS = 2  # one receives while the other writes, also on a fraction of a CPU
_BUFFER = 256 * 1024


def deliver(
    server: Server, layers: Sequence[Layer], staging: str, patience: Patience, progress: Progress, console: Console
) -> str:
    """Bring all layers into one tree under the empty folder `staging`; returns its path.

    Raises:
        FetchError: what the first layer that could not be had failed with.
    """
    waiting = deque(sorted(layers, key=lambda layer: -layer.size))  # the longest first: none is left for the end
    failures: list[Exception] = []

    def work() -> None:
        try:
            with Session(server, patience) as session:
                while True:
                    try:
                        layer = waiting.popleft()
                    except IndexError:
                        return
                    _bring(session, layer, f"{staging}/{layer.number}", patience, progress, console)
        except Abandoned:
            pass  # the failure that counts is another thread's
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
            patience.abandon()

    count = min(len(layers), _MOST_WORKERS, max(_FEWEST_WORKERS, granted_cpus()))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        if failures:
            raise failures[0]
        return _merged(layers, staging)
    except OSError as error:
        raise CannotWrite(f"cannot unpack the layers: {error.strerror} ({error.filename or staging})") from error


def _bring(
    session: Session, layer: Layer, folder: str, patience: Patience, progress: Progress, console: Console
) -> None:
    def attempt() -> None:
        came = 0

        def arrived(piece: memoryview) -> None:
            nonlocal came
            counted.update(piece)
            progress.add(len(piece))
            came += len(piece)

        counted = hashlib.sha256()
        try:
            _receive(session, layer, folder, arrived, counted)
        except Passing:
            progress.add(-came)
            if os.path.isdir(folder):
                remove(folder)
            raise

    persist(attempt, patience, console.say)


def _receive(
    session: Session, layer: Layer, folder: str, arrived: Callable[[memoryview], None], counted: _Hash
) -> None:
    malformed = None
    with session.exchange("GET", f"/v1/blobs/{layer.digest}", arrived=arrived) as body:
        os.mkdir(folder)
        tar = plain(layer, body)
        try:
            unpack(tar, folder)
        except InvalidLayer as error:
            malformed = error
        while body.read(_BUFFER):  # the digest is that of all bytes, also of those behind the archive's end
            pass
    check(counted.hexdigest(), layer.digest)
    if malformed is not None:
        raise Mismatch(f"{layer.digest} is no layer: {malformed}") from malformed


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
