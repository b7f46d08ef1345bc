"""METADATA out of a wheel file, and whether it is about the wheel that the lock names. Blocks: for threads."""

import zipfile
import zlib
from pathlib import Path

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from resolver.domain.errors import InvalidWheel
from resolver.domain.ports import WheelReference

METADATA_LIMIT = 8 * 1024 * 1024
"""Bytes of a METADATA that is read; the largest known ones are a few hundred thousand."""


def read_metadata(path: Path, wheel: WheelReference) -> bytes:
    """The METADATA in the `.dist-info` folder of the wheel at `path` (PEP 427).

    Raises:
        InvalidWheel: no zip, a broken one, no METADATA, several, or one over the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [member for member in archive.infolist() if _is_metadata(member.filename)]
            if len(found) != 1:
                raise InvalidWheel(wheel.filename, f"{len(found) or 'no'} METADATA at its top")
            if found[0].file_size > METADATA_LIMIT:
                raise InvalidWheel(wheel.filename, f"METADATA is over {METADATA_LIMIT} bytes")
            return archive.read(found[0])
    # What zipfile raises: for the structure, for a method or a password that it lacks, for what does not unpack.
    except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError, ValueError, OSError) as error:
        raise InvalidWheel(wheel.filename, f"its METADATA cannot be read: {type(error).__name__}") from error


def check_metadata(content: bytes, wheel: WheelReference) -> None:
    """Raises InvalidWheel where METADATA names another project or version than the lock does."""
    raw, _ = parse_email(content)
    name, version = raw.get("name"), raw.get("version")
    if name is None or version is None:
        raise InvalidWheel(wheel.filename, "METADATA has no Name or no Version")
    try:
        same = canonicalize_name(name) == wheel.name and Version(version) == Version(wheel.version)
    except InvalidVersion:
        same = False
    if not same:
        raise InvalidWheel(wheel.filename, f"METADATA says {name[:80]} {version[:80]}")


def _is_metadata(path: str) -> bool:
    folder, _, name = path.partition("/")
    return folder.endswith(".dist-info") and name == "METADATA"
