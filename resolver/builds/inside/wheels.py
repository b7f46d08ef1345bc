"""Built wheels in the one form that equal builds have in common, and what they say of themselves.

What wrote a wheel may have been hostile, so this runs in a sandbox of its own, in which no package's code ever ran.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib

MOST_MEMBERS = 50_000
MOST_BYTES = 512 << 20
MOST_METADATA = 1 << 20
_TIME = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_COMMON = re.compile(
    r"(?:libc|libm|libdl|libpthread|librt|libutil|libresolv|libnsl|libgcc_s|libstdc\+\+)\.so\.\d+|ld-linux-.*|ld-musl-.*|"
    r"libc\.musl-.*"
)
_COMPILED = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")


class Unfit(Exception):
    """It is no wheel: says why."""


def normalise(wheel: str, target: str) -> list[str]:
    """Write the wheel anew: its members in order of their names, `.dist-info` last (PEP 427), all of one time, with no
    other permission than to be run. Not compressed, as not every zlib compresses alike. Returns the
    members that are compiled code. Raises Unfit."""
    try:
        with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as made:
            return _copy(source, made)
    # What zipfile raises: for the structure, for a method or a password that it lacks, for what does not unpack.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, MemoryError) as error:
        raise Unfit(f"its wheel cannot be read ({type(error).__name__}: {error})"[:300]) from error


def foreign(wheel: str, compiled: list[str]) -> list[str]:
    """The libraries that the compiled members want beside those that any machine of their kind has (PEP 600, 656) and
    those in the wheel itself."""
    if not compiled:
        return []
    own = {name.rpartition("/")[2] for name in compiled}
    with zipfile.ZipFile(wheel) as members:
        wanted = {library for name in compiled for library in needed(members.read(name))}
    return sorted(library for library in wanted - own if not _COMMON.fullmatch(library))


def needed(content: bytes) -> list[str]:
    """The libraries that an ELF file wants (DT_NEEDED); none where it is no 64-bit little-endian one. Raises Unfit."""
    if content[:6] != b"\x7fELF\x02\x01":
        return []
    try:
        return [_string(content, offset) for offset in _needed(content)]
    except (struct.error, ValueError) as error:
        raise Unfit("compiled code in its wheel cannot be read") from error


def _needed(content: bytes) -> list[int]:
    """Where in the file the names are."""
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQ", content, table + number * size) for number in range(count)]
    loaded = [(address, length, offset) for kind, _, offset, address, _, length in segments if kind == _PT_LOAD]
    names, strings = [], 0
    for kind, _, offset, _, _, length in segments:
        if kind != _PT_DYNAMIC:
            continue
        for place in range(offset, offset + length, 16):
            tag, value = struct.unpack_from("<QQ", content, place)
            if tag == _DT_NULL:
                break
            if tag == _DT_NEEDED:
                names.append(value)
            elif tag == _DT_STRTAB:
                strings = next((o + value - a for a, length, o in loaded if a <= value < a + length), value)
    return [strings + name for name in names]


def _string(content: bytes, offset: int) -> str:
    return content[offset : content.index(b"\0", offset)].decode("ascii", "replace")


def _copy(source: zipfile.ZipFile, made: zipfile.ZipFile) -> list[str]:
    members = [member for member in source.infolist() if not member.is_dir()]
    names = {member.filename for member in members}
    if len(members) > MOST_MEMBERS or len(names) != len(members):
        raise Unfit("its wheel has too many members, or two of one name")
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise Unfit(f"its wheel expands to more than {MOST_BYTES} bytes")
    compiled: list[str] = []
    for member in sorted(members, key=lambda member: (".dist-info/" in member.filename, member.filename)):
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Unfit(f"{member.filename[:200]!r} in its wheel is no plain file")
        info = zipfile.ZipInfo(member.filename, _TIME)
        info.external_attr = (stat.S_IFREG | (0o755 if mode & 0o100 else 0o644)) << 16
        info.create_system = 3  # Unix, wherever it was made
        info.file_size = member.file_size  # known, it needs no room for what might be larger
        with source.open(member) as read, made.open(info, "w") as written:
            chunk = read.read(_CHUNK)
            if chunk.startswith(_COMPILED):
                compiled.append(member.filename)
            while chunk:
                written.write(chunk)
                chunk = read.read(_CHUNK)
    return compiled
