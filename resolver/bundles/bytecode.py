"""Byte-code for a tree that is the same bytes wherever and whenever it is made.

`marshal` flags an object by its reference count, so what a process compiled before shows in its output. Hence a fresh
process for each chunk of files (see compilers.py), the chunks follow from the tree alone, and names are relative to
the tree, so that no path of this machine enters the process.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from resolver.bundles.compilers import Compiler, Compilers
from resolver.bundles.tree import File, Tree, folders
from resolver.bundles.unpack import SITE_PACKAGES

_CHUNK_FILES = 256
_CHUNK_BYTES = 2 << 20
_KEPT_BYTES = 32 << 20


@contextmanager
def compiled(tree: Tree, interpreter: Path, staging: Path, jobs: int, compilers: Compilers) -> Iterator[Tree]:
    """The byte-code of every `.py` file under `site-packages` of the tree, compiled by `jobs` processes at a time; to
    be read within the context, one file after the other. With it, the sources themselves, as far as memory is set aside
    for them: they need not be unpacked and checked once more. What of the byte-code is beyond the memory set aside for
    that is in files in the folder `staging`.

    Raises:
        InterpreterFailed: it is not for the wheel that it failed.
        What opening the tree's files raises.
    """
    found: dict[str, File] = {}
    room = room_for_bytecode = _KEPT_BYTES
    busy: deque[Compiler] = deque()

    def sources(names: list[str]) -> Iterator[tuple[str, bytes]]:
        nonlocal room
        for name in names:
            content = _content(tree[name])
            if len(content) <= room:
                room -= len(content)
                found[name] = replace(tree[name], open=partial(BytesIO, content))
            yield name, content

    def finish() -> None:
        nonlocal room_for_bytecode
        # For it, a size of 0 would be no bound.
        spool = SpooledTemporaryFile(max_size=max(1, room_for_bytecode), dir=os.fspath(staging))  # noqa: SIM115 - below
        taken = cast("BinaryIO", kept.enter_context(spool))
        busy[0].answer(taken)
        compilers.put_back(busy.popleft())
        room_for_bytecode = max(0, room_for_bytecode - taken.tell())
        found.update(_parts(taken))

    with ExitStack() as kept:
        try:
            for names in _chunks(tree):
                if len(busy) == jobs:
                    finish()
                busy.append(compilers.take(interpreter))
                busy[-1].ask(sources(names))
            while busy:
                finish()
        finally:
            for compiler in busy:  # in the middle of something that nobody waits for
                compiler.end()
        yield {name: file for name, file in found.items() if tree.keys().isdisjoint(folders(name))}


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


def _parts(taken: BinaryIO) -> Iterator[tuple[str, File]]:
    taken.seek(0)
    while line := taken.readline():
        size, _, name = line[:-1].decode().partition(" ")
        yield name, File(int(size), partial(_part, taken, taken.tell()))
        taken.seek(int(size), os.SEEK_CUR)


@contextmanager
def _part(taken: BinaryIO, start: int) -> Iterator[BinaryIO]:
    taken.seek(start)
    yield taken
