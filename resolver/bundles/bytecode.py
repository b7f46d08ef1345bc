"""Byte-code for a tree that is the same bytes wherever and whenever it is made.

`marshal` flags an object by its reference count, so what a process compiled before shows in its output. Hence a fresh
process for each chunk of files (see compilers.py), the chunks follow from the tree alone, and names are relative to
the tree, so that no path of this machine enters the process.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from resolver.bundles.compilers import Compiler, Compilers
from resolver.bundles.tree import File, Tree, folders
from resolver.bundles.unpack import SITE_PACKAGES

_CHUNK_FILES = 256
_CHUNK_BYTES = 2 << 20
_KEPT_BYTES = 32 << 20


def compiled(tree: Tree, interpreter: Path, staging: Path, jobs: int, compilers: Compilers) -> Tree:
    """The byte-code of every `.py` file under `site-packages` of the tree, compiled by `jobs` processes at a time. It
    is kept in a few files in the folder `staging`, which has to stay as long as it is read. With it, the sources
    themselves, as far as memory is set aside for them: they need not be unpacked and checked once more.

    Raises:
        InterpreterFailed: it is not for the wheel that it failed.
        What opening the tree's files raises.
    """
    found: dict[str, File] = {}
    room = _KEPT_BYTES
    busy: deque[tuple[Compiler, Path]] = deque()

    def sources(names: list[str]) -> Iterator[tuple[str, bytes]]:
        nonlocal room
        for name in names:
            content = _content(tree[name])
            if len(content) <= room:
                room -= len(content)
                found[name] = replace(tree[name], open=partial(BytesIO, content))
            yield name, content

    def finish() -> None:
        compiler, target = busy[0]
        with target.open("xb") as file:
            compiler.answer(cast("BinaryIO", file))
        busy.popleft()
        compilers.put_back(compiler)
        found.update(_parts(target))

    try:
        for number, names in enumerate(_chunks(tree)):
            if len(busy) == jobs:
                finish()
            busy.append((compilers.take(interpreter), staging / f"bytecode-{number}"))
            busy[-1][0].ask(sources(names))
        while busy:
            finish()
    finally:
        for compiler, _ in busy:  # in the middle of something that nobody waits for
            compiler.end()
    return {name: file for name, file in found.items() if tree.keys().isdisjoint(folders(name))}


def _chunks(tree: Tree) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for name in sorted(name for name in tree if name.startswith(f"{SITE_PACKAGES}/") and name.endswith(".py")):
        length = tree[name].size
        if chunk and (len(chunk) == _CHUNK_FILES or size + length > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += length
    if chunk:
        yield chunk


def _content(source: File) -> bytes:
    with source.open() as stream:
        # A stream may give less than is asked for, and finds out at its end whether it is what it should be.
        return b"".join(iter(partial(stream.read, max(1, source.size)), b""))


def _parts(path: Path) -> Iterator[tuple[str, File]]:
    with path.open("rb") as file:
        while line := file.readline():
            size, _, name = line[:-1].decode().partition(" ")
            yield name, File(int(size), partial(_part, path, file.tell()))
            file.seek(int(size), os.SEEK_CUR)


@contextmanager
def _part(path: Path, start: int) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        file.seek(start)
        yield cast("BinaryIO", file)
