import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import pytest

from resolver.engines.interpreters import Interpreter, UnusableInterpreter, discover
from tests.unit.engines.conftest import HERE

NAME = f"python{HERE}"


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def real(folder: Path, name: str) -> Path:
    return script(folder, name, f'exec {sys.executable} "$@"')


async def test_the_first_that_runs_and_is_what_it_says(tmp_path: Path) -> None:
    script(tmp_path / "shims", NAME, "echo 'no such version' >&2; exit 127")
    script(tmp_path / "chatty", NAME, "echo hello")
    script(tmp_path / "list", NAME, "echo '[]'")
    script(tmp_path / "broken", NAME, "").write_bytes(b"\x7fELF nothing of the kind")
    (tmp_path / "folder" / NAME).mkdir(parents=True)
    real(tmp_path / "good", NAME)
    names = ["absent", "shims", "chatty", "list", "broken", "folder", "good"]
    found = await discover(os.pathsep.join(["", *(str(tmp_path / name) for name in names)]), {})
    assert found == {
        HERE: Interpreter(
            python=HERE,
            path=Path(sys.executable),
            version=platform.python_version(),
            implementation="cpython",
            cache_tag=f"cpython-{HERE.replace('.', '')}",
            magic=importlib.util.MAGIC_NUMBER.hex(),
        )
    }


async def test_a_name_that_lies_is_not_believed(tmp_path: Path) -> None:
    real(tmp_path, "python3.10" if HERE != "3.10" else "python3.13")
    assert await discover(str(tmp_path), {}) == {}


async def test_no_other_implementation_and_no_free_threads(tmp_path: Path) -> None:
    facts = {"python": HERE, "path": "/usr/bin/python", "version": f"{HERE}.0", "cache_tag": "other", "magic": "00"}
    for folder, implementation, free_threaded in (("one", "pypy", False), ("two", "cpython", True)):
        answer = json.dumps({**facts, "implementation": implementation, "free_threaded": free_threaded})
        script(tmp_path / folder, NAME, f"echo '{answer}'")
    assert await discover(f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}", {}) == {}


async def test_what_the_operator_names_comes_first(tmp_path: Path) -> None:
    script(tmp_path, NAME, "exit 1")
    named = await discover(str(tmp_path), {HERE: Path(sys.executable)})
    assert list(named) == [HERE]


@pytest.mark.parametrize(
    ("body", "reason"),
    [("exit 1", "ended with 1"), ("echo {}", "none of a Python"), (f'exec {sys.executable} "$@"', f"not {HERE}0")],
)
async def test_what_the_operator_names_must_do(tmp_path: Path, body: str, reason: str) -> None:
    path = script(tmp_path, "python", body)
    python = "3.10" if HERE != "3.10" else "3.13"
    with pytest.raises(UnusableInterpreter) as raised:
        await discover("", {python: path})
    assert raised.value.path == path
    assert reason.replace(f"{HERE}0", python) in raised.value.reason


async def test_what_the_operator_names_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableInterpreter, match="could not be started"):
        await discover("", {HERE: tmp_path / "python"})
    with pytest.raises(UnusableInterpreter, match=r"Python 2\.7 is none of 3\.10"):
        await discover("", {"2.7": Path(sys.executable)})
