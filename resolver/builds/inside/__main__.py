"""`python -I inside STEP TASK ROOT PIP [--confine]`: one step of a build, within the sandbox.

    read     lay the sdist out, and say what stands in it
    build    make the environment, ask the backend what else it wants, make the wheel (PEP 517; see hook.py)
    accept   of wheels that were built of one sdist, the first one in normal form, and whether all are equal

The task is JSON in a file, next to those that it names. The step works in the folder ROOT alone; PIP is the folder of
the package pip. The answer goes to standard output: a line of JSON, and the bytes of a wheel where there is one. All
else that is printed goes to standard error, and is the build's log. Where no namespaces are around it, the step shuts
itself in as far as the kernel lets it (landlock.py, sockets.py).
"""

from __future__ import annotations

import filecmp
import json
import os
import stat
import subprocess
import sys
import venv
from typing import Any

from resolver.builds.inside import hook, landlock, limits, sockets, unpack, wheels

_CHUNK = 1 << 20
_MOST_TEXT = 1 << 20
_CAUSE = 500

JSON = dict[str, Any]


class Failure(Exception):
    """The step comes to nothing: says why."""


class Place:
    """Where a step works: its own folder `root`, the folder `given` of what it is given, the package `pip`."""

    def __init__(self, given: str, root: str, pip: str) -> None:
        self.given = given
        self.root = root
        self.pip = pip

    def file(self, name: str) -> str:
        """A file that it is given."""
        return os.path.join(self.given, name)

    def own(self, *names: str) -> str:
        """A path within its own folder."""
        return os.path.join(self.root, *names)


def main(step: str, task: str, root: str, pip: str, *flags: str) -> None:
    """Do the step, and answer."""
    place = Place(os.path.dirname(task), root, pip)
    with open(task) as file:
        asked = json.load(file)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limits.limit(**asked["limits"])
    if "--confine" in flags:
        _confine(place)
    wheel: str | None = None
    try:
        if step == "read":
            answer = read(asked, place)
        elif step == "accept":
            answer, wheel = accept(asked, place)
        else:
            answer, wheel = build(asked, place)
    except (Failure, unpack.Unfit, wheels.Unfit) as failure:
        answer = {"failed": str(failure)[:_CAUSE]}
    except OSError as error:
        answer = {"failed": f"the build's folder: {error.strerror}"}
    answers.write(json.dumps(answer).encode() + b"\n")
    if wheel is not None:
        with open(os.open(wheel, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            while chunk := file.read(_CHUNK):
                answers.write(chunk)
    answers.close()


def _confine(place: Place) -> None:
    ours, importable = os.path.dirname(hook.__file__), os.path.dirname(place.pip)
    if not landlock.confine(readable=(*landlock.system(), place.given, importable, ours), writable=place.root):
        sys.stderr.write("this kernel has no Landlock: files are guarded by their modes alone\n")
    if not sockets.forbid():
        sys.stderr.write("this kernel filters no system calls: the network is guarded by what is around alone\n")


def read(asked: JSON, place: Place) -> JSON:
    """What stands in the sdist."""
    folder = unpack.unpack(place.file(asked["sdist"]), place.own("src"))
    project = _toml(os.path.join(folder, "pyproject.toml"))
    if project is None and not os.path.exists(os.path.join(folder, "setup.py")):
        raise Failure("it has neither a pyproject.toml nor a setup.py: nothing says how it is built (PEP 517)")
    system = (project or {}).get("build-system")
    # PEP 518, 517: what stands where nothing is said.
    requires: list[str] = ["setuptools>=40.8.0"]
    backend: object = "setuptools.build_meta:__legacy__"
    path: Any = []
    if system is not None:
        if not isinstance(system, dict) or not _texts(system.get("requires")):
            raise Failure("its pyproject.toml has a [build-system] without `requires` (PEP 518)")
        requires = system["requires"]
        backend, path = system.get("build-backend", backend), system.get("backend-path", path)
    if not isinstance(backend, str) or not _texts(path):
        raise Failure("its pyproject.toml names no build backend that can be read (PEP 517)")
    if any(os.path.isabs(part) or ".." in part.split("/") for part in path):
        raise Failure("the backend-path of its pyproject.toml leads out of it (PEP 517)")
    metadata = os.path.join(folder, "PKG-INFO")
    return {
        "metadata": _text(metadata) if os.path.exists(metadata) else "",
        "requires": requires,
        "backend": backend,
        "backend_path": path,
    }


def build(asked: JSON, place: Place) -> tuple[JSON, str | None]:
    """The wheel, or what is wanted beside."""
    folder = unpack.unpack(place.file(asked["sdist"]), place.own("src"))
    environment = _environment([place.file(name) for name in asked["wheels"]], place)
    out = place.own("out")
    os.makedirs(out)
    path, wanted = place.own("task.json"), place.own("tmp", "compiler-wanted")
    with open(path, "w") as file:
        json.dump({**asked, "folder": folder, "out": out, "pip": place.pip}, file)
    programs = os.path.join(environment, "bin")
    variables = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": environment}
    variables |= {} if asked["compilers"] else _no_compiler(place.own("no-compiler"), wanted)
    reading, writing = os.pipe()
    argv = [os.path.join(programs, "python"), hook.__file__, path, str(writing)]
    backend = subprocess.Popen(argv, cwd=folder, env=variables, pass_fds=[writing])
    os.close(writing)
    with open(reading, "rb") as pipe:
        line = pipe.readline(_MOST_TEXT)
    code = backend.wait()
    try:
        said = json.loads(line)
    except ValueError:
        return {"failed": _ended(code), "compiler": os.path.exists(wanted)}, None
    if not isinstance(said, dict):
        raise Failure("its build backend wrote over its answer")
    if "wheel" not in said:
        return {**said, "compiler": os.path.exists(wanted)}, None
    name = str(said["wheel"])
    wheel = os.path.join(out, name)
    if os.path.basename(name) != name or not os.path.lexists(wheel) or not stat.S_ISREG(os.lstat(wheel).st_mode):
        raise Failure("its build backend says that it made a wheel, and there is none")
    return {"wheel": name}, wheel


def accept(asked: JSON, place: Place) -> tuple[JSON, str]:
    """The first wheel in normal form, and whether the others are the same."""
    made: list[str] = []
    compiled: list[str] = []
    for number, wheel in enumerate(asked["wheels"]):
        made.append(place.own(f"{number}.whl"))
        compiled = wheels.normalise(place.file(wheel), made[-1])
    same = all(filecmp.cmp(made[0], other, shallow=False) for other in made[1:])
    code = wheels.Code(made[0], compiled, asked["libc"])
    return {"same": same, "compiled": compiled, "foreign": code.foreign, "glibc": code.glibc}, made[0]


def _environment(given: list[str], place: Place) -> str:
    """An environment with these wheels and nothing else."""
    folder = place.own("env")
    venv.create(folder, symlinks=True)
    if given:
        # Each wheel was chosen, and its hash checked, outside.
        python = os.path.join(folder, "bin", "python")
        arguments = ["install", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--no-input", "--quiet"]
        arguments += ["--disable-pip-version-check", "--root-user-action=ignore", *given]
        if subprocess.run([python, "-I", place.pip, *arguments], check=False).returncode != 0:
            raise Failure("its build requirements could not be installed")
    return folder


def _no_compiler(path: str, wanted: str) -> dict[str, str]:
    """What stands where compilers would: it notes that one was wanted. A wheel for any platform needs none, and what
    comes out must not depend on whether one happens to be here."""
    with open(path, "w") as file:
        file.write(f"#!/bin/sh\n: >{wanted}\necho 'no compiler: builds: native is needed' >&2\nexit 1\n")
    os.chmod(path, 0o755)  # noqa: S103 - a program is run
    return dict.fromkeys(("CC", "CXX", "FC", "F77", "F90", "CARGO", "RUSTC"), path)


def _ended(code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return f"its build backend {how}, and told no wheel"


def _toml(path: str) -> JSON | None:
    if not os.path.exists(path):
        return None
    import tomllib  # from Python 3.11 on; builders, which read none, may have an older one

    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise Failure(f"its pyproject.toml is none: {str(error)[:200]}") from None


def _text(path: str) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        content = file.read(_MOST_TEXT + 1)
    if len(content) > _MOST_TEXT:
        raise Failure(f"its {os.path.basename(path)} has more than {_MOST_TEXT} bytes")
    return content.decode("utf-8", "replace")


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


if __name__ == "__main__":
    main(*sys.argv[1:])
