"""Unpacks a layer's tar: regular files and folders, under `site-packages/` and `bin/`, and nothing else.

A reader that knows no links, devices, owners or sparse files has nothing to filter (compare CVE-2025-4517). It reads
POSIX ustar with the `path` and `size` records of pax headers, and GNU long names.

The tar comes in pieces, and what a file holds is written from these as they are: nothing is copied on the way.
"""

from __future__ import annotations

import os
from zlib import adler32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = 512
_LONGEST_HEADER = 64 * 1024
_LONGEST_NUMBER = 18  # digits
_ROOTS = ("site-packages", "bin")
_FILE, _FOLDER, _PAX, _GNU_NAME = b"0\0", b"5", b"x", b"L"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_END = bytes(_BLOCK)


class InvalidLayer(Exception):
    """The tar holds something that a layer does not have; the message says what."""


class _Pieces:
    """The tar as it comes. A piece is good until the next one is asked for."""

    def __init__(self, pieces: Iterable[memoryview | bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")
        self._at = 0

    def take(self, most: int) -> memoryview:
        """The next bytes: one at least, `most` at the most."""
        while self._at == len(self._piece):
            if not self._next():
                raise InvalidLayer("the archive ends too early")
        taken = self._piece[self._at : self._at + most]
        self._at += len(taken)
        return taken

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._at + count
        if end <= len(self._piece):
            content = self._piece[self._at : end].tobytes()
            self._at = end
            return content
        parts = bytearray()
        while len(parts) < count:
            parts += self.take(count - len(parts))
        return bytes(parts)

    def skip(self, count: int) -> None:
        """Leave the next `count` bytes out."""
        while count:
            count -= len(self.take(count))

    def rest(self) -> Iterator[memoryview]:
        """All that is left."""
        yield self._piece[self._at :]
        while self._next():
            yield self._piece

    def _next(self) -> bool:
        piece = next(self._pieces, None)
        self._piece, self._at = memoryview(piece or b""), 0
        return piece is not None


class _Entry:
    def __init__(self, header: bytes, extended: dict[str, str]) -> None:
        if _sum(header) - sum(header[148:156]) + 8 * 32 != _octal(header[148:156]):
            raise InvalidLayer("a header's checksum is wrong")
        name = _text(header[:100])
        if header[257:263] == b"ustar\0" and header[345]:
            name = f"{_text(header[345:500])}/{name}"
        self.kind = header[156:157]
        self.executable = bool(_octal(header[100:108]) & 0o111)
        self.mtime = _octal(header[136:148])
        self.name = extended.get("path", name)
        self.size = _decimal(extended["size"]) if "size" in extended else _octal(header[124:136])


def unpack(pieces: Iterable[memoryview | bytes], folder: str) -> None:
    """Write what the tar holds into the empty `folder`. Modes become 0644 or 0755 under a umask of 022.

    Raises:
        InvalidLayer: something in it is not allowed, or stands there twice. Part of it may be written.
        OSError: it cannot be written.
    """
    tar = _Pieces(pieces)
    made = {""}
    extended: dict[str, str] = {}
    while (header := tar.exactly(_BLOCK)) != _END:
        entry = _Entry(header, extended)
        if entry.kind in (_PAX, _GNU_NAME):
            extended |= _extended(entry, tar)
            continue
        extended = {}
        if entry.kind == _FOLDER:
            _make(folder, _path(entry.name.removesuffix("/")), made)
        elif entry.kind in _FILE:
            _write(tar, folder, entry, made)
        else:
            raise InvalidLayer(f"{entry.name!r} is neither a regular file nor a folder")
    for rest in tar.rest():
        if rest.tobytes().strip(b"\0"):
            raise InvalidLayer("something follows the end of the archive")


def _write(tar: _Pieces, folder: str, entry: _Entry, made: set[str]) -> None:
    path = _path(entry.name)
    parent = path.rpartition("/")[0]
    if not parent:
        raise InvalidLayer(f"{path!r} is a file where a folder belongs")
    if parent not in made:
        _make(folder, parent, made)
    try:
        file = os.open(f"{folder}/{path}", _NEW, 0o755 if entry.executable else 0o644)
    except FileExistsError:
        raise InvalidLayer(f"{path!r} stands there twice") from None
    try:
        left = entry.size
        while left:
            content = tar.take(left)
            left -= len(content)
            while content:
                content = content[os.write(file, content) :]
        os.utime(file, (entry.mtime, entry.mtime))
    finally:
        os.close(file)
    tar.skip(-entry.size % _BLOCK)


def _make(folder: str, path: str, made: set[str]) -> None:
    if path in made:
        return
    _make(folder, path.rpartition("/")[0], made)
    try:
        os.mkdir(f"{folder}/{path}", 0o755)
    except FileExistsError:
        raise InvalidLayer(f"{path!r} is a file, and a folder as well") from None
    made.add(path)


def _path(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise InvalidLayer(f"{name!r} is not a path inside of the layer")
    if parts[0] not in _ROOTS:
        raise InvalidLayer(f"{name!r} is neither under site-packages nor under bin")
    return name


def _extended(entry: _Entry, tar: _Pieces) -> dict[str, str]:
    if entry.size > _LONGEST_HEADER:
        raise InvalidLayer("a header that is longer than any path")
    content = tar.exactly(entry.size)
    tar.skip(-entry.size % _BLOCK)
    if entry.kind == _GNU_NAME:
        return {"path": _text(content)}
    records = {}
    while content:
        length, _, _ = content.partition(b" ")
        end = _decimal(length.decode("ascii", "replace"))
        key, equals, value = content[len(length) + 1 : end - 1].partition(b"=")
        if not equals or content[end - 1 : end] != b"\n":
            raise InvalidLayer("a pax header that is none")
        if key.startswith(b"GNU.sparse"):
            raise InvalidLayer("a sparse file")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[end:]
    return records


def _sum(header: bytes) -> int:
    # The low half of an Adler-32 is one more than the sum of the bytes modulo 65521 (RFC 1950, 8.2), which half a
    # header's never reaches; `sum` alone would take as long as all else that is done for a header.
    half = _BLOCK // 2
    return (adler32(header[:half]) & 0xFFFF) + (adler32(header[half:]) & 0xFFFF) - 2


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise InvalidLayer("a header's number is none")
    return int(digits or b"0", 8)


def _decimal(digits: str) -> int:
    if not digits.isdecimal() or len(digits) > _LONGEST_NUMBER:
        raise InvalidLayer("a pax header's number is none")
    return int(digits)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
