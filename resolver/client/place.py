"""The target folder, and the one link that flips.

    DIR/
    ├── site-packages → .lockstep/current/site-packages
    ├── bin           → .lockstep/current/bin
    └── .lockstep/
        ├── current   → sha256-2c26…          the link that flips
        ├── lock                              held while a run changes anything here
        ├── staging/                          a run's work; gone when it ends, or when the next one begins
        └── sha256-2c26…/                     a bundle (no colon: it would end a path on PYTHONPATH)
            ├── .lockstep.json                what was asked for, and what this is
            ├── site-packages/
            └── bin/

A tree gets its name only once it is whole, and is shown only by the flip; so both links show a whole tree, the old
one or the new. The old one is removed after it. Nothing that is not ours is ever removed or replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager

from resolver.client.errors import CannotWrite, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from resolver.client.retries import Patience

RECORD_VERSION = 1

_SHOWN = ("site-packages", "bin")
_RECORD = ".lockstep.json"
_LOCK_POLL = 0.1  # seconds
_MARGIN = 1024 * 1024  # bytes, for folders and links


class Record:
    """What a tree is: the digest of the request that it answers, and what the last line of a run tells of it."""

    def __init__(self, request: str, bundle: str, lock: str, packages: int, unpacked_size: int) -> None:
        self.request = request
        self.bundle = bundle
        self.lock = lock
        self.packages = packages
        self.unpacked_size = unpacked_size


class Place:
    """A target folder. Whatever the file system refuses is raised as CannotWrite."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._own = f"{folder}/.lockstep"
        self._current = f"{self._own}/current"

    def record(self) -> Record | None:
        """What the current tree is, None where there is none that is certain to be whole."""
        try:
            with open(f"{self._current}/{_RECORD}", encoding="utf-8") as file:
                facts = json.load(file)
            if facts.pop("version") == RECORD_VERSION:
                return Record(**facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or one that another version wrote
            pass
        return None

    def settled(self) -> bool:
        """Whether the current tree is shown, and no killed run left anything behind."""
        try:
            return all(self._shows(name) for name in _SHOWN) and not self._leftovers()
        except OSError:
            return False

    @contextmanager
    def locked(self, patience: Patience) -> Iterator[None]:
        """Keep every other run out of here; what a killed one left behind is removed first."""
        with _writing(self.folder):
            os.makedirs(self._own, exist_ok=True)
            lock = os.open(f"{self._own}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _writing(self.folder):
                self._wait(lock, patience)
                for path in self._leftovers():
                    remove(path)
            yield
        finally:
            os.close(lock)

    def check_links(self) -> None:
        """Raises CannotWrite where something that is not ours stands where the links belong."""
        for name in _SHOWN:
            if os.path.lexists(f"{self.folder}/{name}") and not self._shows(name):
                raise CannotWrite(f"{self.folder}/{name} is there already, and was not made by Lockstep")

    def check_room(self, unpacked_size: int) -> None:
        """Raises CannotWrite where so many bytes have no room."""
        with _writing(self.folder):
            system = os.statvfs(self._own)
        room = system.f_bavail * system.f_frsize
        if system.f_blocks and room < unpacked_size + _MARGIN:
            raise CannotWrite(f"{self.folder} has room for {room} bytes; the bundle needs {unpacked_size}")

    @contextmanager
    def staging(self) -> Iterator[str]:
        """An empty folder to work in, gone in the end."""
        path = f"{self._own}/staging"
        with _writing(self.folder):
            os.mkdir(path)
        try:
            yield path
        finally:
            with _writing(self.folder):
                remove(path)

    def publish(self, tree: str, record: Record) -> None:
        """Show this tree instead of whatever was shown."""
        name = record.bundle.replace(":", "-")
        path = f"{self._own}/{name}"
        with _writing(self.folder):
            self._write_record(tree, record)
            if os.path.lexists(path):  # the current tree, and yet with no record that can be read: not whole
                remove(path)
            os.rename(tree, path)
            os.symlink(name, f"{self._current}.new")
            os.rename(f"{self._current}.new", self._current)
            for leftover in self._leftovers():
                if not leftover.endswith("/staging"):
                    remove(leftover)
        self.show()

    def relabel(self, record: Record) -> None:
        """The current tree answers this request as well."""
        with _writing(self.folder):
            self._write_record(self._current, record)
        self.show()

    def show(self) -> None:
        """Make the links through which the current tree is seen, unless they are there."""
        with _writing(self.folder):
            for name in _SHOWN:
                if not self._shows(name):
                    os.symlink(f".lockstep/current/{name}", f"{self.folder}/{name}")

    def withdraw(self) -> None:
        """Show nothing, so that what is installed instead is not shadowed, nor hindered by links to nowhere."""
        with _writing(self.folder):
            for name in _SHOWN:
                if self._shows(name):
                    os.unlink(f"{self.folder}/{name}")
            if os.path.islink(self._current):
                os.unlink(self._current)
            for path in self._leftovers():
                remove(path)

    def write_requirements(self, text: str) -> None:
        """Leave this text in `DIR/requirements.txt`; a file that has it is not touched."""
        path = f"{self.folder}/requirements.txt"
        content = text.encode("utf-8", "surrogateescape")
        with _writing(self.folder):
            if _content(path) != content:
                _replace(path, content)

    def _wait(self, lock: int, patience: Patience) -> None:
        while not _try_lock(lock):
            try:
                patience.pause(_LOCK_POLL)
            except Unavailable:
                raise Unavailable(f"another fetch was at work in {self.folder} for {patience.seconds:g} s") from None

    def _shows(self, name: str) -> bool:
        try:
            return os.readlink(f"{self.folder}/{name}") == f".lockstep/current/{name}"
        except OSError:  # nothing there, or no link
            return False

    def _leftovers(self) -> list[str]:
        kept = {"lock", "current"}
        if os.path.islink(self._current):
            kept.add(os.readlink(self._current))
        return [f"{self._own}/{name}" for name in os.listdir(self._own) if name not in kept]

    def _write_record(self, tree: str, record: Record) -> None:
        _replace(f"{tree}/{_RECORD}", json.dumps({"version": RECORD_VERSION, **vars(record)}).encode())


def remove(path: str) -> None:
    """Remove a file, a link or a whole folder (`shutil` costs more to import than this is worth)."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    for name in os.listdir(path):
        remove(f"{path}/{name}")
    os.rmdir(path)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _replace(path: str, content: bytes) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(content)
    os.rename(f"{path}.new", path)


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror} ({error.filename or folder})") from error
