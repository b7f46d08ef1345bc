"""The Python interpreters at hand: found by their names, believed only once they have run."""

import asyncio
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from resolver.domain.errors import EngineFailed, TimedOut
from resolver.domain.targets import PYTHONS
from resolver.engines.process import run, scratch

_SECONDS = 10
_MEMORY = 2 * 1024**3
_OUTPUT_LIMIT = 64 * 1024

_QUESTION = """
import importlib.util, json, sys
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "path": sys.executable,
    "version": sys.version.split()[0],
    "implementation": sys.implementation.name,
    "cache_tag": sys.implementation.cache_tag,
    "magic": importlib.util.MAGIC_NUMBER.hex(),
    "free_threaded": "t" in sys.abiflags,
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that runs: its minor version (`3.12`), where it is, its whole version, `cpython`, the tag of its
    byte-code files (PEP 3147) and their magic number in hexadecimal."""

    python: str
    path: Path
    version: str
    implementation: str
    cache_tag: str
    magic: str


class UnusableInterpreter(ValueError):
    """An interpreter that the operator named does not do: `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


async def discover(path: str, wanted: Mapping[str, Path], workspace: Path | None = None) -> dict[str, Interpreter]:
    """The interpreters by minor version: those of `wanted` as they are named there, for the others the first
    `python3.X` of the folders in `path` (written as PATH is) that runs and is what its name says. They run in folders
    within `workspace` (absent: where the system keeps temporary files).

    Raises:
        UnusableInterpreter: one of `wanted` does not run, or is another than is said.
    """
    named = await asyncio.gather(*(_demand(python, interpreter, workspace) for python, interpreter in wanted.items()))
    found = await asyncio.gather(*(_first(path, python, workspace) for python in PYTHONS if python not in wanted))
    interpreters = {interpreter.python: interpreter for interpreter in (*named, *found) if interpreter is not None}
    return dict(sorted(interpreters.items(), key=lambda item: PYTHONS.index(item[0])))


async def _demand(python: str, path: Path, workspace: Path | None) -> Interpreter:
    if python not in PYTHONS:
        raise UnusableInterpreter(path, f"Python {python} is none of {', '.join(PYTHONS)}")
    answer = await _probe(path, python, workspace)
    if isinstance(answer, str):
        raise UnusableInterpreter(path, answer)
    return answer


async def _first(path: str, python: str, workspace: Path | None) -> Interpreter | None:
    for candidate in await asyncio.to_thread(lambda: list(_candidates(path, python))):
        answer = await _probe(candidate, python, workspace)
        if isinstance(answer, Interpreter):
            return answer
    return None


def _candidates(path: str, python: str) -> Iterator[Path]:
    for folder in path.split(os.pathsep):
        if folder and (found := shutil.which(f"python{python}", path=folder)):
            yield Path(found).absolute()


async def _probe(path: Path, python: str, workspace: Path | None) -> Interpreter | str:
    """The interpreter at `path`, or why it is none of that version."""
    try:
        async with scratch(workspace) as folder:
            completed = await run(
                [path, "-I", "-S", "-B", "-c", _QUESTION],
                engine="interpreter",
                env={},
                cwd=folder,
                timeout=_SECONDS,
                memory=_MEMORY,
                output_limit=_OUTPUT_LIMIT,
            )
    except (EngineFailed, TimedOut) as error:
        return str(error)
    if completed.returncode != 0:
        return f"it ended with {completed.returncode}"
    try:
        facts = json.loads(completed.stdout)
        free_threaded = facts.pop("free_threaded")
        interpreter = Interpreter(**{**facts, "path": Path(facts["path"] or path)})
    except (ValueError, TypeError, KeyError, AttributeError):
        return "its answer is none of a Python"
    if interpreter.implementation != "cpython" or free_threaded:
        return "not a CPython with a global interpreter lock"
    if interpreter.python != python:
        return f"it is Python {interpreter.version}, not {python}"
    return interpreter
