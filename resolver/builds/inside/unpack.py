"""Lays out a source distribution (PEP 625, and the zips from before it): regular files and folders, and no others.

Nothing of it is believed: where a member would go, how many there are, how much it expands to.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

MOST_MEMBERS = 50_000
MOST_BYTES = 512 << 20
_RATIO = 200
_SMALL = 64 << 20
"""Bytes that an sdist of any size may expand to; beyond it, no more than `_RATIO` times its own."""
_CHUNK = 1 << 20


class Unfit(Exception):
    """The archive is none that is built: says why."""


def unpack(archive: str, folder: str) -> str:
    """Lay the archive out in the folder; returns the one folder at its top. Raises Unfit."""
    budget = _Budget(os.path.getsize(archive))
    try:
        if archive.endswith(".zip"):
            _unpack_zip(archive, folder, budget)
        else:
            _unpack_tar(archive, folder, budget)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, MemoryError) as error:
        raise Unfit(f"it cannot be unpacked ({type(error).__name__}: {error})"[:300]) from error
    except OSError as error:
        raise Unfit(f"it cannot be unpacked ({error.strerror or type(error).__name__})") from error
    if len(budget.tops) != 1:
        raise Unfit(f"it has {len(budget.tops) or 'no'} folders at its top, not one (PEP 625)")
    return os.path.join(folder, budget.tops.pop())


class _Budget:
    def __init__(self, size: int) -> None:
        self._most = min(MOST_BYTES, max(_SMALL, size * _RATIO))
        self._members = 0
        self._bytes = 0
        self.tops: set[str] = set()

    def member(self, name: str) -> str | None:
        """Where the member goes, within the folder; None for the folder itself."""
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise Unfit(f"it has more than {MOST_MEMBERS} members")
        parts = name.rstrip("/").split("/")
        while parts and parts[0] == ".":
            del parts[0]
        if not parts:
            return None
        if name.startswith("/") or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise Unfit(f"its member {name[:200]!r} would be written outside of it")
        self.tops.add(parts[0])
        return os.path.join(*parts)

    def spend(self, count: int) -> None:
        """So many bytes more."""
        self._bytes += count
        if self._bytes > self._most:
            raise Unfit(f"it expands to more than {self._most} bytes")


def _unpack_tar(archive: str, folder: str, budget: _Budget) -> None:
    # As a stream: nothing is looked for twice, and what the headers claim is not seeked to.
    with tarfile.open(archive, "r|*") as members:
        for member in members:
            path = budget.member(member.name)
            if member.isdir():
                if path:
                    os.makedirs(os.path.join(folder, path), 0o755, exist_ok=True)
                continue
            if not member.isreg():
                kind = "a link" if member.issym() or member.islnk() else "a device or another special file"
                raise Unfit(f"its member {member.name[:200]!r} is {kind}")
            source = members.extractfile(member)
            if path is None or source is None or member.issparse():
                raise Unfit(f"its member {member.name[:200]!r} is no plain file")
            budget.spend(member.size)
            _write(source, folder, path, member.mode & 0o100)


def _unpack_zip(archive: str, folder: str, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            path = budget.member(member.filename)
            mode = member.external_attr >> 16
            if member.is_dir():
                if path:
                    os.makedirs(os.path.join(folder, path), 0o755, exist_ok=True)
                continue
            if path is None or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Unfit(f"its member {member.filename[:200]!r} is no plain file")
            budget.spend(member.file_size)
            with members.open(member) as source:
                _write(source, folder, path, mode & 0o100)


def _write(source: IO[bytes], folder: str, path: str, executable: int) -> None:
    target = os.path.join(folder, path)
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.lexists(target):
        os.unlink(target)  # of two with one name the last counts, as in any tar
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if executable else 0o644)
    with open(descriptor, "wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
