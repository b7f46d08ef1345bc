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
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_VERNEED = 0, 1, 5, 0x6FFFFFFE
_MOST_VERSIONS = 10_000
# PEP 600: what every machine with that C library has. PEP 656: there, it is that library alone.
_COMMON = {
    "glibc": re.compile(
        r"(?:libc|libm|libdl|libpthread|librt|libutil|libresolv|libnsl|libgcc_s|libstdc\+\+)\.so\.\d+|ld-linux-.*"
    ),
    "musl": re.compile(r"libc\.so|libc\.musl-.*|ld-musl-.*"),
}
_GLIBC = re.compile(r"GLIBC_(\d{1,3})\.(\d{1,3})(?:\.\d+)?")
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


class Code:
    """What the compiled members of a wheel want of a machine: libraries beside those that any of its kind has and those
    in the wheel itself (`foreign`), and the newest `glibc` whose symbols they use, None where they use none.

    The two questions of auditwheel that matter to a wheel that is given to one target class alone. auditwheel looks for
    the libraries on the machine that it runs on, which here need not be of the wheel's class, nor even of its libc; and
    it would have to stand in every sandbox. For the same reason no abi3 wheel has to be audited for later Pythons."""

    def __init__(self, wheel: str, compiled: list[str], libc: str) -> None:
        """Raises Unfit."""
        own = {name.rpartition("/")[2] for name in compiled}
        wanted: set[str] = set()
        versions: set[tuple[int, int]] = set()
        with zipfile.ZipFile(wheel) as members:
            for name in compiled:
                libraries, symbols = _wants(members.read(name))
                wanted.update(libraries)
                versions.update((int(found[1]), int(found[2])) for found in map(_GLIBC.fullmatch, symbols) if found)
        self.foreign = sorted(library for library in wanted - own if not _COMMON[libc].fullmatch(library))
        self.glibc = max(versions, default=None)


def _wants(content: bytes) -> tuple[list[str], list[str]]:
    """The libraries that an ELF file wants (DT_NEEDED), and the versions of symbols (DT_VERNEED); none where it is no
    64-bit little-endian one."""
    if content[:6] != b"\x7fELF\x02\x01":
        return [], []
    try:
        loaded, dynamic = _segments(content)
        strings = [_offset(value, loaded) for tag, value in dynamic if tag == _DT_STRTAB]
        start = strings[0] if strings else 0
        needed = [_string(content, start + value) for tag, value in dynamic if tag == _DT_NEEDED]
        tables = [_offset(value, loaded) for tag, value in dynamic if tag == _DT_VERNEED]
        versions = [_string(content, start + name) for table in tables[:1] for name in _versions(content, table)]
    except (struct.error, ValueError) as error:
        raise Unfit("compiled code in its wheel cannot be read") from error
    return needed, versions


def _segments(content: bytes) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """What is loaded, as (address, length, where it is in the file), and the entries of the dynamic section."""
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQ", content, table + number * size) for number in range(count)]
    loaded = [(address, length, offset) for kind, _, offset, address, _, length in segments if kind == _PT_LOAD]
    dynamic = []
    for kind, _, offset, _, _, length in segments:
        if kind == _PT_DYNAMIC:
            for place in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", content, place)
                if tag == _DT_NULL:
                    break
                dynamic.append((tag, value))
    return loaded, dynamic


def _offset(address: int, loaded: list[tuple[int, int, int]]) -> int:
    """Where in the file it is."""
    return next(
        (offset + address - start for start, length, offset in loaded if start <= address < start + length), address
    )


def _versions(content: bytes, table: int) -> list[int]:
    """Where the names of the versions that are wanted are, among the strings (Elf64_Verneed, Elf64_Vernaux)."""
    names: list[int] = []
    while len(names) < _MOST_VERSIONS:
        _, count, _, first, following = struct.unpack_from("<HHIII", content, table)
        place = table + first
        for _ in range(count):
            _, _, _, name, another = struct.unpack_from("<IHHII", content, place)
            names.append(name)
            place += another
        if not following:
            return names
        table += following
    raise ValueError("too many versions")


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
