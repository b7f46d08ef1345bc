"""Interpreters that compile: each chunk of files in a process that has compiled nothing before.

To start an interpreter takes longer than to compile most wheels. So one is started once, compiles nothing itself, and
forks for each chunk: what comes out of a fork is what comes out of an interpreter that has just started.
"""

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# What compileall does with `--invalidation-mode unchecked-hash`, without a file written for each. A chunk is a byte,
# which tells the server to fork, and then, for the fork, sources as `<size> <name>\n` and so many bytes, ended by an
# empty line; byte-code comes back in the same form. All is read before anything is written, so that neither side waits
# for the other. Files that do not compile (templates, Python 2) are passed over, as uv and pip do, so that an exit code
# tells of the interpreter alone. A fork is gone before it would be worth its while to look for garbage.
_PROGRAM = """
import gc, os, sys
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from marshal import dumps

def compile_chunk():
    head = MAGIC_NUMBER + (1).to_bytes(4, "little")
    given, sources, found = open(0, "rb"), [], []
    while (line := given.readline()) != b"\\n":
        size, _, name = line[:-1].decode().partition(" ")
        sources.append((name, given.read(int(size))))
    for name, source in sources:
        try:
            body = dumps(compile(source, "/" + name, "exec", dont_inherit=True))
        except Exception:
            continue
        line = "%d %s\\n" % (len(head) + 8 + len(body), cache_from_source(name))
        found += [line.encode(), head, source_hash(source), body]
    found.append(b"\\n")
    with open(1, "wb") as taken:
        taken.writelines(found)

gc.disable()
while os.read(0, 1):
    pid = os.fork()
    if not pid:
        compile_chunk()
        os._exit(0)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        os._exit(status if status > 0 else 128 - status)
"""
# Neither the environment (which is empty but for the hash seed, which -I and -E would ignore too, and what is said to
# libc), nor user site (-s), nor site (-S) has a say.
_OPTIONS = ("-s", "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", _PROGRAM)
# It comes first on the interpreter's sys.path: it holds no module that the program would import.
_WORKING_FOLDER = "/"
# What compiling one file has given back is kept for the next: to have a page from the kernel costs more than to use it.
# Other libcs than glibc do not read this.
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
_SHOWN = 2000  # bytes of what an interpreter said that an error carries
_BUFFER = 1 << 16


class InterpreterFailed(RuntimeError):
    """The interpreter did not do its work: it did not start, or died."""


class Compiler:
    """An interpreter that waits for a chunk of files. Asked and answering in turns; what fails has to be ended."""

    def __init__(self, interpreter: Path) -> None:
        environment = {"PYTHONHASHSEED": "0", **_KEPT_MEMORY}
        if libraries := os.environ.get("LD_LIBRARY_PATH"):  # without it, an interpreter may not find its libpython
            environment["LD_LIBRARY_PATH"] = libraries
        self.interpreter = interpreter
        self._process = subprocess.Popen(
            [os.fspath(interpreter), *_OPTIONS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=_BUFFER,
            cwd=_WORKING_FOLDER,
            env=environment,
        )
        assert self._process.stdin is not None  # noqa: S101 - asked for as pipes above
        assert self._process.stdout is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        self._given, self._taken, self._said = self._process.stdin, self._process.stdout, self._process.stderr

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, sources: Iterable[tuple[str, bytes]]) -> None:
        """Hand it sources by their names. Raises InterpreterFailed, and what iterating over the sources raises."""
        try:
            self._given.write(b"\n")
            for name, content in sources:
                self._given.write(f"{len(content)} {name}\n".encode())
                self._given.write(content)
            self._given.write(b"\n")
            self._given.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def answer(self, target: BinaryIO) -> None:
        """Write the byte-code of what it was asked for last, each as `<size> <name>` in a line and so many bytes.

        Raises: InterpreterFailed.
        """
        while (line := self._taken.readline()) != b"\n":
            content = self._taken.read(int(line.partition(b" ")[0])) if line.endswith(b"\n") else b""
            if not content:
                raise self._failure()
            target.write(line)
            target.write(content)

    def end(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.wait()
        self._taken.close()
        self._said.close()
        with suppress(BrokenPipeError):  # of what was still to be sent
            self._given.close()

    def _failure(self) -> InterpreterFailed:
        said = self._said.read()[-_SHOWN:].decode(errors="replace").strip()
        return InterpreterFailed(f"status {self._process.wait()}: {said}")


class Compilers:
    """Those of one worker, kept from wheel to wheel: as many as have ever been at work at once."""

    def __init__(self) -> None:
        self._idle: defaultdict[Path, list[Compiler]] = defaultdict(list)

    def take(self, interpreter: Path) -> Compiler:
        """One that is idle, or started now."""
        idle = self._idle[interpreter]
        while idle:
            compiler = idle.pop()
            if compiler.alive:
                return compiler
            compiler.end()  # the kernel, short of memory, may have taken it
        return Compiler(interpreter)

    def put_back(self, compiler: Compiler) -> None:
        """It has answered."""
        self._idle[compiler.interpreter].append(compiler)

    def close(self) -> None:
        """End those that are idle."""
        for idle in self._idle.values():
            while idle:
                idle.pop().end()
