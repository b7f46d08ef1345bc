"""Byte-code is the same bytes wherever it is made, and is what the interpreter then runs."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from resolver.bundles.bytecode import InterpreterFailed
from resolver.domain.errors import TimedOut
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
    compile_tree(tree, pythons()[minor].path, jobs=2, timeout=60)
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
        compile_tree(tree, this_python().path, jobs=1 + number % 3, timeout=300)
        fingerprints.add(fingerprint(tree))
        assert len(compiled(tree)) == len(files)
    assert len(fingerprints) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_of_the_tree_runs_or_shadows_the_compiler(tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    names = ("compileall.py", "py_compile.py", "struct.py", "argparse.py", "sitecustomize.py", "usercustomize.py")
    tree = grow(tmp_path / "tree", {**dict.fromkeys(names, evil), "evil.pth": f"import os; {evil}"})
    compile_tree(tree, this_python().path, jobs=1, timeout=60)
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
    compile_tree(tree, this_python().path, jobs=2, timeout=60)
    assert compiled(tree) == {"e_warns", "g_good"}


def test_names_may_be_odd_and_a_file_may_stand_in_the_way(tmp_path: Path) -> None:
    files = dict.fromkeys(("demo/a b.py", "demo/naïve.py", "demo/c.d.py", "taken/__pycache__", "taken/e.py"), "x = 1\n")
    tree = grow(tmp_path / "tree", files)
    compile_tree(tree, this_python().path, jobs=2, timeout=60)
    assert compiled(tree) == {"a b", "naïve", "c"}


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_interpreter_that_fails_is_no_fault_of_the_files(tmp_path: Path) -> None:
    tree = grow(tmp_path / "tree", {"demo.py": ""})
    broken = program(tmp_path / "python", "#!/bin/sh\necho 'no libpython' >&2\nexit 127\n")
    with pytest.raises(InterpreterFailed, match="status 127: no libpython"):
        compile_tree(tree, broken, jobs=1, timeout=60)


def test_time_is_limited_and_no_process_stays(tmp_path: Path) -> None:
    tree = grow(tmp_path / "tree", many_modules(300))
    slow = program(tmp_path / "python", f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    with pytest.raises(TimedOut):
        compile_tree(tree, slow, jobs=2, timeout=3)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
