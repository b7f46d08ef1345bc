"""An installed tree that is not on a disk: which files it has, and where their bytes come from when it is packed.

Writing thousands of files, to read each once and remove it again, costs more than all that is done with them.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import BinaryIO

from resolver.bundles.pack import Member


@dataclass(frozen=True, slots=True)
class File:
    """A file of `size` bytes, which `open` gives anew each time. `sha256` (hexadecimal) is known of one that `open`
    compares with it."""

    size: int
    open: Callable[[], AbstractContextManager[BinaryIO]]
    executable: bool = False
    sha256: str | None = None


Tree = Mapping[str, File]
"""Files by their paths."""


def text(content: bytes, executable: bool = False) -> File:
    """A file of these bytes."""
    return File(len(content), lambda: BytesIO(content), executable)


def members(tree: Tree) -> Generator[Member, None, None]:
    """The tree's files and the folders that they need, in the order of their names. Raises what opening them raises."""
    # Sorted by name, a folder comes before what is in it, because its name is a prefix of theirs.
    for name in sorted({*tree, *(folder for path in tree for folder in folders(path))}):
        file = tree.get(name)
        if file is None:
            yield Member(name)
            continue
        with file.open() as stream:
            yield Member(name, stream, file.size, file.executable, file.sha256)


def folders(path: str) -> tuple[str, ...]:
    """The folders that a file is in, the innermost first."""
    return _and_above(path.rpartition("/")[0])


@lru_cache(1024)  # most files have their folder in common with the one before
def _and_above(folder: str) -> tuple[str, ...]:
    return (folder, *folders(folder)) if folder else ()
