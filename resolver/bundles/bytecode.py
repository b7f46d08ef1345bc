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
from pathlib import Path

from resolver.bundles.unpack import SITE_PACKAGES
from resolver.domain.errors import TimedOut

_CHUNK_FILES = 128
_CHUNK_BYTES = 1 << 20

# Neither the environment (which is empty but for the hash seed: -I and -E would ignore that too), nor user site (-s),
# nor site (-S) has a say. Left to its own exit code, compileall calls a file that does not compile a failure, like an
# interpreter that does not start: so files that do not compile (templates, Python 2) are passed over, as uv and pip do.
_COMPILE = (
    *("-s", "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", "import compileall; compileall.main()"),
    *("-qq", "--invalidation-mode", "unchecked-hash", "-p", "/", "-i", "-"),
)


class InterpreterFailed(RuntimeError):
    """The interpreter did not do its work: it did not start, or died."""


def compile_tree(tree: Path, interpreter: Path, jobs: int, timeout: float) -> None:
    """Write the byte-code of every `.py` file under `site-packages` of the tree, `jobs` processes at a time.

    Raises:
        TimedOut: it took more than `timeout` seconds; the processes are gone.
        InterpreterFailed: it is not for the wheel that it failed.
    """
    deadline = time.monotonic() + timeout
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(_compile, tree, interpreter, chunk, deadline) for chunk in _chunks(tree)]
        try:
            for chunk in running:
                chunk.result()
        except subprocess.TimeoutExpired:
            raise TimedOut("compiling", timeout) from None
        finally:
            for chunk in running:
                chunk.cancel()


def _chunks(tree: Path) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    sources = ((path.relative_to(tree).as_posix(), path) for path in (tree / SITE_PACKAGES).rglob("*.py"))
    for name, path in sorted(sources):
        if not path.is_file():
            continue
        length = path.stat().st_size
        if chunk and (len(chunk) == _CHUNK_FILES or size + length > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += length
    if chunk:
        yield chunk


def _compile(tree: Path, interpreter: Path, names: list[str], deadline: float) -> None:
    environment = {"PYTHONHASHSEED": "0"}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):  # without it, an interpreter may not find its libpython
        environment["LD_LIBRARY_PATH"] = libraries
    # The tree as working folder comes first on sys.path: it holds `site-packages` and `bin`, and so no module that
    # compileall would import.
    done = subprocess.run(
        [os.fspath(interpreter), *_COMPILE],
        input="".join(f"{name}\n" for name in names).encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tree,
        env=environment,
        timeout=max(0.0, deadline - time.monotonic()),
        check=False,
    )
    if done.returncode != 0:
        raise InterpreterFailed(f"status {done.returncode}: {done.stderr[-2000:].decode(errors='replace').strip()}")
