"""What the scenarios share: one service on the real index, whose store keeps what was fetched for the next test."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.index import PackageIndex
from tests.support.interpreters import THIS
from tests.support.plain_uv import PlainUv
from tests.support.real_index import real_index, real_uv
from tests.support.service import Service
from tests.support.wheels import make_wheel

__all__ = ["real_index"]

# The interpreter that runs the tests compiles byte-code for its minor version.
INTERPRETER = ("--interpreter", f"{THIS}={sys.executable}")

# With the things whose byte-code has been seen to vary: sets, names that recur, nested functions.
_MODULE = """
import os
NAMES = {{"alpha", "beta", "name-{number}"}}
class Thing:
    size = {number}
    def method(self, value, *, other=("a", "b", {number})):
        def inner(item):
            return item in {{"alpha", "omega", {number}}}
        return [inner(each) for each in (value, other, self.size)]
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone after the test: real sets are too large for pytest to keep."""
    yield tmp_path
    for folder in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o755)
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what tests share; gone after the last of them."""
    folder = tmp_path_factory.mktemp("real")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def real_service(real_index: str, kept: Path) -> Iterator[Service]:
    """A service on the real index that takes wheels alone, as who judges it does; its default settings otherwise."""
    with Service(kept / "data", index_url=real_index, flags=[*INTERPRETER, "--builds", "never"]) as started:
        yield started


@pytest.fixture(scope="session")
def judge(real_index: str, kept: Path) -> PlainUv:
    """uv on the real index, which sees what is older than MOMENT."""
    return real_uv(real_index, kept / "uv")


def everything_a_wheel_can_hold(index: PackageIndex) -> str:
    """Publish wheels that have, together, all that an installer must lay out; returns requirements for them."""
    modules = {f"every/part{n % 7}/module_{n}.py": _MODULE.format(number=n) for n in range(150)}
    index.add(
        *make_wheel(
            "every-thing",
            "1.0",
            requires=["space-one", "space-two"],
            extras=["more"],
            files={**modules, "every/__init__.py": "", "every_path.pth": "import sys; sys.every_path = True\n"},
            data={
                "scripts/every-script": "#!python\nprint('script')\n",
                "scripts/every-shell": "#!/bin/sh\necho shell\n",
                "purelib/every/pure.py": "WHERE = 'purelib'\n",
                "platlib/every/plat.py": "WHERE = 'platlib'\n",
                "data/share/every/readme.txt": "data\n",
                "headers/every.h": "#define EVERY 1\n",
            },
            entry_points="[console_scripts]\nevery = every.pure:main\nevery-deep = every.pure:Class.main [more]\n"
            "[gui_scripts]\nevery-gui = every.pure:main\n[every.plugins]\none = every.pure\n",
        )
    )
    for part in ("one", "two"):
        index.add(*make_wheel(f"space-{part}", "1.0", files={f"space/{part}.py": f"NAME = {part!r}\n"}))
    return "every-thing\n"
