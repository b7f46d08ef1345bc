"""Wheels that were built here, as engines see them: beside what indexes serve, and no more of them than they read."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from resolver.domain.builds import BuiltWheel

FOLDER = "built"

_WHEEL = b"Wheel-Version: 1.0\nGenerator: lockstep\nRoot-Is-Purelib: true\n"


def lay_out(built: Sequence[BuiltWheel], folder: Path) -> list[str]:
    """Put them into a folder within this one; returns the arguments that tell either engine of it. An engine resolves
    by a wheel's name and METADATA; what it says of the rest is replaced by what is known (narrowing.py). Blocks."""
    if not built:
        return []
    place = folder / FOLDER
    place.mkdir()
    for wheel in built:
        with zipfile.ZipFile(place / wheel.filename, "w") as archive:
            info = "-".join(wheel.filename.split("-")[:2]) + ".dist-info"
            archive.writestr(f"{info}/METADATA", wheel.metadata)
            archive.writestr(f"{info}/WHEEL", _WHEEL)
            archive.writestr(f"{info}/RECORD", b"")
    return ["--find-links", FOLDER]
