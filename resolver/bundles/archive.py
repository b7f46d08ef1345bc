"""A wheel as a source of files (PEP 427) that is believed in nothing: names, kinds, sizes and hashes are checked."""

import base64
import configparser
import csv
import hashlib
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, cast

from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelFile
from installer.utils import parse_entrypoints
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

# Binary distribution format, "RECORD": "The hash algorithm must be sha256 or better".
_HASHES = frozenset({"sha256", "sha384", "sha512"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHA256 = re.compile(r"[A-Za-z0-9_-]{43}")
# Recording installed projects: an installer writes these, so a wheel that brings one is not believed.
_INSTALLERS_OWN = frozenset({"INSTALLER", "REQUESTED", "direct_url.json"})
_TEXT_LIMIT = 64 << 20
_NAME_LIMIT = 255
_PATH_LIMIT = 1024
# All that zipfile, installer, packaging, csv and configparser are known to raise for what they cannot read.
_UNREADABLE = (
    ValueError,  # UnicodeDecodeError, InvalidVersion, InvalidWheelFilename, installer's validation
    InstallerError,
    InvalidRecordEntry,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression, or a zip feature, that zipfile does not know
    configparser.Error,
    csv.Error,
)


class BrokenWheel(ValueError):
    """The wheel breaks its format; the message says how, and names no path of this machine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a wheel may expand: bytes in all, bytes for each byte of the wheel (any may reach `floor`), entries."""

    unpacked: int = 4 << 30
    ratio: int = 200
    floor: int = 64 << 20
    entries: int = 200_000

    def bytes_for(self, wheel_size: int) -> int:
        """The bytes that a wheel of this size may expand to."""
        return min(self.unpacked, max(self.floor, self.ratio * wheel_size))


DEFAULT_LIMITS = Limits()


@contextmanager
def reading() -> Iterator[None]:
    """Around what reads a wheel. Raises BrokenWheel for all that the libraries raise where they cannot."""
    try:
        yield
    except BrokenWheel:
        raise
    except _UNREADABLE as error:
        raise BrokenWheel(str(error) or type(error).__name__) from error
    except MemoryError:
        raise BrokenWheel("takes more memory to read than a wheel may") from None


@dataclass(frozen=True, slots=True)
class Unread:
    """A file of a wheel that nobody has read yet: where it is, and what RECORD says of it."""

    wheel: "CheckedWheel"
    path: str
    hash: Hash
    size: int

    @property
    def sha256(self) -> str | None:
        """The hash in hexadecimal; None where RECORD has another kind, or what is no hash."""
        value = self.hash.value.rstrip("=")
        if self.hash.name != "sha256" or not _SHA256.fullmatch(value):
            return None
        return base64.urlsafe_b64decode(value + "=").hex()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes. Raises BrokenWheel, in reading or at the context's end, where they are not those of RECORD."""
        with reading():
            stream = self.wheel.archive.open(self.path)
        with stream:
            verified = _VerifiedStream(cast("BinaryIO", stream), self)
            yield cast("BinaryIO", verified)
            verified.finish()


class CheckedWheel(WheelFile):
    """A wheel whose names and sizes are checked at once, and each file's bytes whenever they are read.

    Raises BrokenWheel, or what `zipfile` and `installer` raise for an archive that they cannot read.
    """

    def __init__(self, archive: zipfile.ZipFile, filename: str, limits: Limits, size: int) -> None:
        """`archive` holds the wheel published as `filename`, of `size` bytes."""
        name, version, _, _ = parse_wheel_filename(filename)
        archive.filename = filename
        super().__init__(archive)
        self.archive = archive
        self._limit = limits.bytes_for(size)
        _check_names(archive.infolist(), limits)
        self.validate_record(validate_contents=False)
        self._check_metadata(name, version)
        self._entry_point_names = self._read_entry_point_names()

    @cached_property
    def data_dir(self) -> str:
        """The folder of files that go elsewhere than the root; spelled as the .dist-info folder is."""
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"

    def read_dist_info(self, filename: str) -> str:
        """A text of the .dist-info folder; like any other file, it may not be without end."""
        path = posixpath.join(self.dist_info_dir, filename)
        if path not in self.archive.NameToInfo:
            raise BrokenWheel(f"has no {path}")
        with self.archive.open(path) as stream:
            content = stream.read(_TEXT_LIMIT + 1)
        if len(content) > _TEXT_LIMIT:
            raise BrokenWheel(f"{path} is over {_TEXT_LIMIT} bytes")
        return content.decode("utf-8")

    def get_contents(self) -> Iterator[WheelContentElement]:
        """The files to install, each as an Unread in the place of a stream: what is not changed is read once, when it
        is packed.

        Left out are byte-code in `__pycache__`, which no one checks against its source (`installer` passes over it
        too), what an installer writes itself, and a script in `.data` that an entry point of its name replaces.
        """
        records = {record[0]: record for record in parse_record_file(self.read_dist_info("RECORD").splitlines())}
        expanded = 0
        for entry in self.archive.infolist():
            if entry.is_dir():
                continue
            # What RECORD does not have, `validate_record` has refused, but for RECORD and its signatures.
            record = records.get(entry.filename, (entry.filename, "", ""))
            mode = entry.external_attr >> 16
            is_executable = stat.S_ISREG(mode) and bool(mode & 0o111)
            if record[0].startswith(f"{self.data_dir}/") and record[0].count("/") < 2:
                raise BrokenWheel(f"{record[0]!r} is in no folder of a scheme")
            if self._is_left_out(record[0]):
                continue
            if record[0] == f"{self.dist_info_dir}/RECORD":  # has no hash of itself; `installer` writes it anew
                continue
            unread = self._unread(RecordEntry.from_elements(*record))
            # An archive's own sizes are not relied on, and a file is not read beyond the size that RECORD has.
            expanded += unread.size
            if expanded > self._limit:
                raise BrokenWheel(f"expands to more than {self._limit} bytes")
            yield record, cast("BinaryIO", unread), is_executable

    def _unread(self, entry: RecordEntry) -> Unread:
        if entry.hash_ is None or entry.hash_.name not in _HASHES:
            raise BrokenWheel(f"RECORD has no sha256 or better for {entry.path!r}")
        if entry.size is None:
            raise BrokenWheel(f"RECORD has no size for {entry.path!r}")
        return Unread(self, entry.path, entry.hash_, entry.size)

    def _is_left_out(self, path: str) -> bool:
        folders, _, name = path.rpartition("/")
        if "__pycache__" in folders.split("/"):
            return True
        if folders == self.dist_info_dir:
            return name in _INSTALLERS_OWN or name.startswith("RECORD.")
        if folders == f"{self.data_dir}/scripts":
            stem = name.removesuffix(".exe").removesuffix("-script.py").removesuffix("-script.pyw")
            return stem in self._entry_point_names
        return False

    def _read_entry_point_names(self) -> frozenset[str]:
        if "entry_points.txt" not in self.dist_info_filenames:
            return frozenset()
        try:
            return frozenset(name for name, *_ in parse_entrypoints(self.read_dist_info("entry_points.txt")))
        except AssertionError:
            raise BrokenWheel("entry_points.txt asks for a script of what is no module:attribute") from None

    def _check_metadata(self, name: str, version: Version) -> None:
        metadata, _ = parse_email(self.read_dist_info("METADATA"))
        stated = f"{metadata.get('name')} {metadata.get('version')}"
        if canonicalize_name(metadata.get("name", "")) != name or Version(metadata.get("version", "")) != version:
            raise BrokenWheel(f"METADATA is of {stated!r}, the filename of {name} {version}")


class _VerifiedStream:
    """A file of a wheel on its way out, compared with RECORD."""

    def __init__(self, stream: BinaryIO, file: Unread) -> None:
        self._stream = stream
        self._file = file
        self._hash = hashlib.new(file.hash.name)
        self._size = 0

    def read(self, size: int) -> bytes:
        """The next bytes, `size` at the most."""
        with reading():
            chunk = self._stream.read(size)
        self._hash.update(chunk)
        self._size += len(chunk)
        if self._size > self._file.size or (not chunk and self._size < self._file.size):
            raise self._other()
        return chunk

    def finish(self) -> None:
        """Raises BrokenWheel unless this was its end, and all was as recorded."""
        self.read(1)
        actual = base64.urlsafe_b64encode(self._hash.digest()).decode("ascii").rstrip("=")
        if actual != self._file.hash.value.rstrip("="):
            raise self._other()

    def _other(self) -> BrokenWheel:
        return BrokenWheel(f"{self._file.path!r} is not what RECORD says")


def _check_names(entries: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(entries) > limits.entries:
        raise BrokenWheel(f"has more than {limits.entries} entries")
    files: set[str] = set()
    paths: set[str] = set()
    for entry in entries:
        # `orig_filename` still has what follows a NUL, which `filename` has lost.
        name = entry.orig_filename
        _check_name(name)
        _check_kind(name, entry)
        path = name.removesuffix("/")
        if path in paths:
            raise BrokenWheel(f"has {path!r} twice")
        paths.add(path)
        if path == name:
            files.add(path)
    for path in paths:
        for parent in _parents(path):
            if parent in files:
                raise BrokenWheel(f"has {parent!r} both as a file and as a folder")


def _check_name(name: str) -> None:
    if _CONTROL.search(name):
        raise BrokenWheel(f"the name {name[:200]!r} has control characters")
    if "\\" in name:
        raise BrokenWheel(f"the name {name[:200]!r} has a backslash")
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BrokenWheel(f"the name {name[:200]!r} is absolute, or has empty, '.' or '..' parts")
    if len(name.encode()) > _PATH_LIMIT or any(len(part.encode()) > _NAME_LIMIT for part in parts):
        raise BrokenWheel(f"the name {name[:200]!r}… is too long")


def _check_kind(name: str, entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if name.endswith("/") else stat.S_IFREG):
        raise BrokenWheel(f"{name!r} is a link or a special file")
    if entry.flag_bits & 0x1:
        raise BrokenWheel(f"{name!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BrokenWheel(f"{name!r} is compressed by a method that package indexes do not take")


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
