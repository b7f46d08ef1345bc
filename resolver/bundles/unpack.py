"""Installs a wheel into a tree (PEP 427): what `uv pip install --target` puts into its target, with `bin` set apart."""

import base64
import hashlib
import io
import posixpath
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from installer import install
from installer.destinations import WheelDestination
from installer.records import Hash, RecordEntry
from installer.utils import Scheme, construct_record_file, fix_shebang
from packaging.utils import canonicalize_name

from resolver.bundles.archive import DEFAULT_LIMITS, BrokenWheel, CheckedWheel, Limits, Unread, reading
from resolver.bundles.launchers import console_script, interpreter
from resolver.bundles.tree import File, Tree, folders, text
from resolver.domain.errors import InvalidWheel

if TYPE_CHECKING:
    from installer.scripts import ScriptSection

SITE_PACKAGES = "site-packages"
BIN = "bin"

# `fix_shebang` works in memory; what is larger is a program, no script whose first line is to be changed.
_SCRIPT_LIMIT = 16 << 20


@contextmanager
def unpacked(wheel: Path, filename: str, python: str, limits: Limits = DEFAULT_LIMITS) -> Iterator[Tree]:
    """The wheel file at `wheel`, published as `filename`, installed for a Python such as `3.12`: a tree of
    `site-packages` and, where there are scripts, `bin`. Its files can be read while the context is open.

    Raises:
        InvalidWheel: it breaks PEP 427, reaches outside of its tree, or expands beyond the limits; also where that
            shows only in reading the tree's files within the context.
    """
    try:
        with reading():
            # PEP 427: "Archive filenames are encoded as UTF-8", also where the zip flag that says so is not set.
            archive = zipfile.ZipFile(wheel, metadata_encoding="utf-8")
        with archive:
            yield _installed(archive, filename, python, limits, wheel.stat().st_size)
    except BrokenWheel as error:
        raise InvalidWheel(filename, str(error)) from error


def _installed(archive: zipfile.ZipFile, filename: str, python: str, limits: Limits, size: int) -> Tree:
    with reading():
        source = CheckedWheel(archive, filename, limits, size)
        destination = TreeDestination(python, canonicalize_name(source.distribution))
        install(source, destination, {"INSTALLER": b"lockstep\n"})
    return destination.tree


class TreeDestination(WheelDestination):
    """Notes an installed tree that works wherever it is mounted."""

    def __init__(self, python: str, project: str) -> None:
        self.tree: dict[str, File] = {}
        self._with_files: set[str] = set()
        self._python = python
        self._folders = {
            "purelib": SITE_PACKAGES,
            "platlib": SITE_PACKAGES,
            "data": SITE_PACKAGES,
            "headers": f"{SITE_PACKAGES}/include/{project}",
            "scripts": BIN,
        }

    def write_script(self, name: str, module: str, attr: str, section: "ScriptSection") -> RecordEntry:
        """Write the program for an entry point."""
        if "/" in name or "\\" in name or name in ("", ".", "..") or not name.isprintable():
            raise BrokenWheel(f"the entry point {name!r} has no name for a script")
        return self._write(f"{BIN}/{name}", console_script(self._python, module, attr), executable=True)

    def write_file(
        self, scheme: Scheme, path: str | PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Write a file of the wheel; a script (PEP 427: `#!python`) gets its interpreter."""
        location = f"{self._folders[scheme]}/{path}"
        if scheme == "data" and str(path).startswith("bin/"):
            # Under `--target`, data's `bin` and the scripts' folder are the same one.
            location = str(path)
        if not isinstance(stream, Unread):
            return self._write(location, stream.read(), is_executable)
        if scheme != "scripts":
            return self._note(location, stream, is_executable)
        if stream.size > _SCRIPT_LIMIT:
            return self._note(location, stream, executable=True)
        copy = io.BytesIO()
        with stream.open() as original:
            shutil.copyfileobj(original, copy)
        with fix_shebang(copy, interpreter(self._python)) as script:
            return self._write(location, script.read(), executable=True)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Write RECORD, its paths relative to `site-packages` (Recording installed projects)."""
        with construct_record_file(records) as record:
            self._write(f"{SITE_PACKAGES}/{record_file_path}", record.read(), executable=False)

    def _note(self, location: str, file: Unread, executable: bool) -> RecordEntry:
        self._add(location, File(file.size, file.open, executable, file.sha256))
        return RecordEntry(_recorded(location), file.hash, file.size)

    def _write(self, location: str, content: bytes, executable: bool) -> RecordEntry:
        self._add(location, text(content, executable))
        value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        return RecordEntry(_recorded(location), Hash("sha256", value), len(content))

    def _add(self, location: str, file: File) -> None:
        above = set(folders(location))
        if location in self.tree or location in self._with_files or not above.isdisjoint(self.tree):
            raise BrokenWheel(f"two of its files are to be {location!r}")
        self.tree[location] = file
        self._with_files |= above


def _recorded(location: str) -> str:
    within = location.removeprefix(f"{SITE_PACKAGES}/")
    return within if within != location else posixpath.relpath(location, SITE_PACKAGES)
