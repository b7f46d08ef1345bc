"""Byte-code is the same bytes wherever it is made, and is what the interpreter then runs."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from resolver.bundles import bytecode
from resolver.bundles.bytecode import compiled as compiled_tree
from resolver.bundles.compilers import Compilers, InterpreterFailed
from resolver.bundles.tree import File
from resolver.bundles.tree import text as text_file
from tests.unit.bundles.support import Python, compile_tree, files_of, many_modules, pythons, this_python

# Imports all that it finds under `site-packages`, and counts the sources that had to be compiled for it.
IMPORTS_ALL = """
import importlib.machinery, json, pkgutil, sys
compiled = []
original = importlib.machinery.SourceFileLoader.source_to_code
def counting(self, data, path, **options):
    compiled.append(path)
    return original(self, data, path, **options)
importlib.machinery.SourceFileLoader.source_to_code = counting
sys.path.insert(0, sys.argv[1])
modules = [__import__(m.name, fromlist=["_"]) for m in pkgutil.walk_packages([sys.argv[1]])]
print(json.dumps({"modules": [m.__file__ for m in modules], "compiled": compiled,
    "code": [m.where.__code__.co_filename for m in modules if hasattr(m, "where")]}))
"""


def grow(tree: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tree / "site-packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tree


def fingerprint(tree: Path) -> str:
    files = sorted(files_of(tree).items())
    return hashlib.sha256(
        repr([(path, hashlib.sha256(body).hexdigest()) for path, (body, _) in files]).encode()
    ).hexdigest()


def compiled(tree: Path) -> set[str]:
    return {path.rpartition("/")[2].partition(".")[0] for path in files_of(tree) if path.endswith(".pyc")}


def import_all(python: Python, tree: Path) -> dict[str, list[str]]:
    command: list[str | Path] = [python.path, "-I", "-B", "-c", IMPORTS_ALL, tree / "site-packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("minor", sorted(pythons()))
def test_interpreter_compiles_no_source_of_a_compiled_tree(minor: str, tmp_path: Path) -> None:
    files = {"demo/__init__.py": "", "demo/a.py": "def where(): pass\n", "demo/b/__init__.py": "def where(): pass\n"}
    tree = grow(tmp_path / "tree", files)
    before = import_all(pythons()[minor], tree)
    assert len(before["compiled"]) == len(before["modules"]) == 3
    compile_tree(tree, pythons()[minor].path, jobs=2)
    after = import_all(pythons()[minor], tree)
    assert (after["compiled"], len(after["modules"])) == ([], 3)
    # Tracebacks name the file where it is now, not where it was compiled.
    assert after["code"] == [path for path in after["modules"] if not path.endswith("demo/__init__.py")]


def test_same_tree_is_same_bytes_in_any_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = many_modules(700)
    fingerprints = set()
    for number in range(8):
        monkeypatch.setenv("PYTHONHASHSEED", str(number))
        monkeypatch.setenv("PYTHONOPTIMIZE", "2")
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        tree = grow(tmp_path / ("deeper/" * number) / f"tree{number}", files)
        compile_tree(tree, this_python().path, jobs=1 + number % 3)
        fingerprints.add(fingerprint(tree))
        assert len(compiled(tree)) == len(files)
    assert len(fingerprints) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_of_the_tree_runs_or_shadows_the_compiler(tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    names = ("compileall.py", "py_compile.py", "struct.py", "argparse.py", "sitecustomize.py", "usercustomize.py")
    tree = grow(tmp_path / "tree", {**dict.fromkeys(names, evil), "evil.pth": f"import os; {evil}"})
    compile_tree(tree, this_python().path, jobs=1)
    assert compiled(tree) == {name.removesuffix(".py") for name in names}
    assert not (tmp_path / "ran").exists()


def test_files_that_do_not_compile_are_passed_over(tmp_path: Path) -> None:
    tree = grow(
        tmp_path / "tree",
        {
            "a_python2.py": "print 'hello'\n",
            "b_template.py": "import {{ name }}\n",
            "c_nul.py": "x = 1\0\n",
            "d_deep.py": "-" * 200_000 + "1\n",
            "e_warns.py": "x = '\\d' is 1\n",
            "g_good.py": "x = 1\n",
        },
    )
    (tree / "site-packages/f_latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    (tree / "bin").mkdir()
    (tree / "bin/script.py").write_text("x = 1\n")
    (tree / "site-packages/folder.py").mkdir()
    compile_tree(tree, this_python().path, jobs=2)
    assert compiled(tree) == {"e_warns", "g_good"}


def test_names_may_be_odd_and_a_file_may_stand_in_the_way(tmp_path: Path) -> None:
    files = dict.fromkeys(("demo/a b.py", "demo/naïve.py", "demo/c.d.py", "taken/__pycache__", "taken/e.py"), "x = 1\n")
    tree = grow(tmp_path / "tree", files)
    compile_tree(tree, this_python().path, jobs=2)
    assert compiled(tree) == {"a b", "naïve", "c"}


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_interpreter_that_fails_is_no_fault_of_the_files(tmp_path: Path) -> None:
    tree = grow(tmp_path / "tree", {"demo.py": ""})
    broken = program(tmp_path / "python", "#!/bin/sh\necho 'no libpython' >&2\nexit 127\n")
    with pytest.raises(InterpreterFailed, match="status 127: no libpython"):
        compile_tree(tree, broken, jobs=1)


@pytest.mark.parametrize("minor", sorted(pythons()))
def test_forked_compiler_gives_what_a_fresh_one_gives(minor: str, tmp_path: Path) -> None:
    trees = {f"tree{number}": {f"x{number}/{name}": body for name, body in real_modules(number)} for number in range(4)}
    kept = Compilers()
    try:
        for turn in range(3):
            for number, (name, files) in enumerate(trees.items()):
                alone = grow(tmp_path / f"alone{turn}" / name, files)
                compile_tree(alone, pythons()[minor].path, jobs=1)
                after_others = grow(tmp_path / f"others{turn}" / name, files)
                compile_tree(after_others, pythons()[minor].path, jobs=1 + number % 2, compilers=kept)
                assert fingerprint(after_others) == fingerprint(alone)
                assert len(compiled(alone)) > 10
    finally:
        kept.close()


def real_modules(number: int) -> list[tuple[str, str]]:
    """Every fourth module of the standard library's own packages, from this one on."""
    library = Path(os.__file__).parent
    found = sorted(path for name in ("asyncio", "email", "json", "unittest") for path in (library / name).glob("*.py"))
    return [(f"{path.parent.name}/{path.name}", path.read_text()) for path in found[number::4]]


def test_compiler_is_kept_for_the_next_tree(tmp_path: Path) -> None:
    real = this_python().path
    counting = program(tmp_path / "python", f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec {real} "$@"\n')
    kept = Compilers()
    try:
        for number in range(3):
            compile_tree(grow(tmp_path / f"tree{number}", many_modules(300)), counting, jobs=2, compilers=kept)
    finally:
        kept.close()
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_compiler_that_was_killed_while_idle_is_replaced(tmp_path: Path) -> None:
    real = this_python().path
    counting = program(tmp_path / "python", f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec {real} "$@"\n')
    kept = Compilers()
    try:
        for number in range(2):
            tree = grow(tmp_path / f"tree{number}", {"demo.py": "x = 1\n"})
            compile_tree(tree, counting, jobs=1, compilers=kept)
            assert compiled(tree) == {"demo"}
            pid = int((tmp_path / "pids").read_text().split()[-1])
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        kept.close()
    assert len((tmp_path / "pids").read_text().split()) == 2


def test_it_is_the_same_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"site-packages/a{number:03}.py": f"x = {number}\n" for number in range(300)}
    fingerprints = set()
    for kept in (bytecode._KEPT_BYTES, 20_000, 1, 0):
        monkeypatch.setattr(bytecode, "_KEPT_BYTES", kept)
        tree = grow(tmp_path / str(kept), files)
        compile_tree(tree, this_python().path, jobs=2)
        assert len(compiled(tree)) == len(files)
        fingerprints.add(fingerprint(tree))
    assert len(fingerprints) == 1


def test_compilers_that_were_left_in_the_middle_are_ended(tmp_path: Path) -> None:
    real = this_python().path
    counting = program(tmp_path / "python", f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec {real} "$@"\n')

    @contextmanager
    def unreadable() -> Iterator[BinaryIO]:
        raise OSError("it is gone")
        yield

    tree = {f"site-packages/a{number:04}.py": text_file(b"x = 1\n") for number in range(300)}
    staging = tmp_path / "staging"
    staging.mkdir()
    kept = Compilers()
    broken = {**tree, "site-packages/z.py": File(5, unreadable)}
    with pytest.raises(OSError, match="it is gone"), compiled_tree(broken, counting, staging, 2, kept):
        pass
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
