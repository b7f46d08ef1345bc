"""Installs a wheel into a tree (PEP 427): what `uv pip install --target` puts into its target, with `bin` set apart."""

import configparser
import csv
import io
import posixpath
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry
from installer.utils import Scheme, construct_record_file, copyfileobj_with_hashing, fix_shebang
from packaging.utils import canonicalize_name

from resolver.bundles.archive import DEFAULT_LIMITS, BrokenWheel, CheckedWheel, Limits
from resolver.bundles.launchers import console_script, interpreter
from resolver.domain.errors import InvalidWheel

if TYPE_CHECKING:
    from installer.scripts import ScriptSection

SITE_PACKAGES = "site-packages"
BIN = "bin"

# `fix_shebang` works in memory; what is larger is a program, no script whose first line is to be changed.
_SCRIPT_LIMIT = 16 << 20
# All that zipfile, installer, packaging, csv and configparser are known to raise for what they cannot read.
_UNREADABLE = (
    ValueError,  # UnicodeDecodeError, InvalidVersion, InvalidWheelFilename, installer's validation, BrokenWheel
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


def unpack(wheel: Path, filename: str, python: str, tree: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Install the wheel file at `wheel`, published as `filename`, for a Python such as `3.12`, into the empty folder
    `tree`, as `site-packages` and, where there are scripts, `bin`.

    Raises:
        InvalidWheel: it breaks PEP 427, reaches outside of its tree, or expands beyond the limits. `tree` then holds
            a part, for the caller to remove.
    """
    try:
        # PEP 427: "Archive filenames are encoded as UTF-8", also where the zip flag that says so is not set.
        with zipfile.ZipFile(wheel, metadata_encoding="utf-8") as archive:
            source = CheckedWheel(archive, filename, limits, wheel.stat().st_size)
            destination = TreeDestination(tree, python, canonicalize_name(source.distribution))
            install(source, destination, {"INSTALLER": b"lockstep\n"})
    except _UNREADABLE as error:
        raise InvalidWheel(filename, str(error) or type(error).__name__) from error
    except MemoryError:
        raise InvalidWheel(filename, "takes more memory to read than a wheel may") from None


class TreeDestination(WheelDestination):
    """Writes an installed tree that works wherever it is mounted."""

    def __init__(self, tree: Path, python: str, project: str) -> None:
        self._tree = tree
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
        return self._write(f"{BIN}/{name}", io.BytesIO(console_script(self._python, module, attr)), executable=True)

    def write_file(
        self, scheme: Scheme, path: str | PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Write a file of the wheel; a script (PEP 427: `#!python`) gets its interpreter."""
        location = f"{self._folders[scheme]}/{path}"
        if scheme == "data" and str(path).startswith("bin/"):
            # Under `--target`, data's `bin` and the scripts' folder are the same one.
            location = str(path)
        if scheme != "scripts":
            return self._write(location, stream, is_executable)
        with tempfile.TemporaryFile(dir=self._tree) as copy:
            shutil.copyfileobj(stream, copy)
            if copy.tell() > _SCRIPT_LIMIT:
                copy.seek(0)
                return self._write(location, cast("BinaryIO", copy), executable=True)
            with fix_shebang(cast("BinaryIO", copy), interpreter(self._python)) as script:
                return self._write(location, script, executable=True)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Write RECORD, its paths relative to `site-packages` (Recording installed projects)."""
        with construct_record_file(records) as record:
            self._write(f"{SITE_PACKAGES}/{record_file_path}", record, executable=False)

    def _write(self, location: str, stream: BinaryIO, executable: bool) -> RecordEntry:
        path = self._tree / location
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                value, size = copyfileobj_with_hashing(stream, cast("BinaryIO", file), "sha256")
        except (FileExistsError, NotADirectoryError):
            raise BrokenWheel(f"two of its files are to be {location!r}") from None
        path.chmod(0o755 if executable else 0o644)
        return RecordEntry(posixpath.relpath(location, SITE_PACKAGES), Hash("sha256", value), size)
