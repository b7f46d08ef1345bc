"""Unpacks a layer's tar: regular files and folders, under `site-packages/` and `bin/`, and nothing else.

A reader that knows no links, devices, owners or sparse files has nothing to filter (compare CVE-2025-4517). It reads
POSIX ustar with the `path` and `size` records of pax headers, and GNU long names.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Readable(Protocol):
        """Gives the next bytes: as many as asked for, fewer only at the end."""

        def read(self, count: int, /) -> bytes:
            """The next `count` bytes."""
            ...


_BLOCK = 512
_CHUNK = 256 * 1024
_LONGEST_HEADER = 64 * 1024
_LONGEST_NUMBER = 18  # digits
_ROOTS = ("site-packages", "bin")
_FILE, _FOLDER, _PAX, _GNU_NAME = b"0\0", b"5", b"x", b"L"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class InvalidLayer(Exception):
    """The tar holds something that a layer does not have; the message says what."""


class _Entry:
    def __init__(self, header: bytes, extended: dict[str, str]) -> None:
        if sum(header) - sum(header[148:156]) + 8 * 32 != _octal(header[148:156]):
            raise InvalidLayer("a header's checksum is wrong")
        name = _text(header[:100])
        if header[257:263] == b"ustar\0" and header[345]:
            name = f"{_text(header[345:500])}/{name}"
        self.kind = header[156:157]
        self.executable = bool(_octal(header[100:108]) & 0o111)
        self.mtime = _octal(header[136:148])
        self.name = extended.get("path", name)
        self.size = _decimal(extended["size"]) if "size" in extended else _octal(header[124:136])


def unpack(tar: Readable, folder: str) -> None:
    """Write what the tar holds into the empty `folder`. Modes become 0644 or 0755 under a umask of 022.

    Raises:
        InvalidLayer: something in it is not allowed, or stands there twice. Part of it may be written.
        OSError: it cannot be written.
    """
    made = {""}
    extended: dict[str, str] = {}
    while (header := _exactly(tar, _BLOCK)).strip(b"\0"):
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
    while rest := tar.read(_CHUNK):
        if rest.strip(b"\0"):
            raise InvalidLayer("something follows the end of the archive")


def _write(tar: Readable, folder: str, entry: _Entry, made: set[str]) -> None:
    path = _path(entry.name)
    parent = path.rpartition("/")[0]
    if not parent:
        raise InvalidLayer(f"{path!r} is a file where a folder belongs")
    _make(folder, parent, made)
    try:
        file = os.open(f"{folder}/{path}", _NEW, 0o755 if entry.executable else 0o644)
    except FileExistsError:
        raise InvalidLayer(f"{path!r} stands there twice") from None
    try:
        left = entry.size
        while left:
            chunk = _exactly(tar, min(left, _CHUNK))
            left -= len(chunk)
            while chunk:
                chunk = chunk[os.write(file, chunk) :]
        os.utime(file, (entry.mtime, entry.mtime))
    finally:
        os.close(file)
    _exactly(tar, -entry.size % _BLOCK)


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


def _extended(entry: _Entry, tar: Readable) -> dict[str, str]:
    if entry.size > _LONGEST_HEADER:
        raise InvalidLayer("a header that is longer than any path")
    content = _exactly(tar, entry.size)
    _exactly(tar, -entry.size % _BLOCK)
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


def _exactly(tar: Readable, count: int) -> bytes:
    content = tar.read(count)
    if len(content) != count:
        raise InvalidLayer("the archive ends too early")
    return content


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
