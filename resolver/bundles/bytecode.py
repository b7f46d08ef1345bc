"""Byte-code for a tree that is the same bytes wherever and whenever it is made.

`marshal` flags an object by its reference count, so what a process compiled before shows in its output. Hence a fresh
interpreter for each chunk of files, the chunks follow from the tree alone, and names are relative to the tree, so that
no path of this machine enters the process.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast

from resolver.bundles.tree import File, Tree, folders
from resolver.bundles.unpack import SITE_PACKAGES
from resolver.domain.errors import TimedOut

_CHUNK_FILES = 256
_CHUNK_BYTES = 2 << 20

# What compileall does with `--invalidation-mode unchecked-hash`, without a file written for each. Sources come in and
# byte-code goes out as `<size> <name>\n` and so many bytes. Files that do not compile (templates, Python 2) are passed
# over, as uv and pip do, so that an exit code tells of the interpreter alone.
_PROGRAM = """
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from marshal import dumps

head = MAGIC_NUMBER + (1).to_bytes(4, "little")
while True:
    line = sys.stdin.buffer.readline()
    if not line:
        break
    size, _, name = line[:-1].decode().partition(" ")
    source = sys.stdin.buffer.read(int(size))
    try:
        body = dumps(compile(source, "/" + name, "exec", dont_inherit=True))
    except Exception:
        continue
    line = "%d %s\\n" % (len(head) + 8 + len(body), cache_from_source(name))
    sys.stdout.buffer.write(line.encode() + head + source_hash(source) + body)
sys.stdout.buffer.flush()
"""
# Neither the environment (which is empty but for the hash seed: -I and -E would ignore that too), nor user site (-s),
# nor site (-S) has a say.
_OPTIONS = ("-s", "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", _PROGRAM)


class InterpreterFailed(RuntimeError):
    """The interpreter did not do its work: it did not start, or died."""


def compiled(tree: Tree, interpreter: Path, staging: Path, jobs: int, timeout: float) -> Tree:
    """The byte-code of every `.py` file under `site-packages` of the tree, compiled by `jobs` processes at a time. It
    is kept in a few files in the folder `staging`, which has to stay as long as it is read.

    Raises:
        TimedOut: it took more than `timeout` seconds; the processes are gone.
        InterpreterFailed: it is not for the wheel that it failed.
        What opening the tree's files raises.
    """
    deadline = time.monotonic() + timeout
    with ThreadPoolExecutor(jobs) as pool:
        running = []
        try:
            for number, names in enumerate(_chunks(tree)):
                sources = staging / f"sources-{number}"
                _write(tree, names, sources)
                running.append(pool.submit(_compile, interpreter, sources, staging / f"bytecode-{number}", deadline))
            found = {name: file for chunk in running for name, file in chunk.result().items()}
        except subprocess.TimeoutExpired:
            raise TimedOut("compiling", timeout) from None
        finally:
            for chunk in running:
                chunk.cancel()
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


def _write(tree: Tree, names: list[str], target: Path) -> None:
    with target.open("xb") as file:
        for name in names:
            file.write(f"{tree[name].size} {name}\n".encode())
            with tree[name].open() as source:
                copyfileobj(source, file)


def _compile(interpreter: Path, sources: Path, target: Path, deadline: float) -> Tree:
    environment = {"PYTHONHASHSEED": "0"}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # without it, an interpreter may not find its libpython
        environment["LD_LIBRARY_PATH"] = libraries
    # The working folder comes first on sys.path: it holds no module that the program would import.
    with sources.open("rb") as given, target.open("xb") as taken:
        done = subprocess.run(
            [os.fspath(interpreter), *_OPTIONS],
            stdin=given,
            stdout=taken,
            stderr=subprocess.PIPE,
            cwd=target.parent,
            env=environment,
            timeout=max(0.0, deadline - time.monotonic()),
            check=False,
        )
    if done.returncode != 0:
        raise InterpreterFailed(f"status {done.returncode}: {done.stderr[-2000:].decode(errors='replace').strip()}")
    sources.unlink()
    return dict(_parts(target))


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
