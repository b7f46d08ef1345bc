"""What a wheel's tree looks like."""

import csv
import subprocess
from pathlib import Path

import pytest
import uv

from tests.support.wheels import make_wheel
from tests.unit.bundles.support import DEMO, MINOR, files_of, put, raw_wheel, this_python, unpack

RICH = make_wheel(
    "Rich.Demo",
    "1.0",
    files={
        "rich_demo/__init__.py": "def main():\n    print('main of', __file__)\n",
        "rich_demo/data/Table.TXT": "x",
        "rich_demo/old.pyc": b"kept, as uv does",
        "rich_demo/__pycache__/__init__.cpython-312.pyc": b"not kept",
        "bin/__init__.py": "",
    },
    data={
        "scripts/plain": "#!python\nimport sys; print('plain', sys.version_info[:2])\n",
        "scripts/windowed": "#!pythonw -E\nprint('windowed')\n",
        "scripts/shell": "#!/bin/sh\necho shell\n",
        "scripts/rich": "#!python\nprint('replaced by the entry point')\n",
        "scripts/rich-script.py": "#!python\n",
        "data/share/man/man1/rich.1": "manual",
        "data/etc/rich.conf": "settings",
        "data/bin/from-data": "no program",
        "headers/rich.h": "int rich;",
        "purelib/rich_pure.py": "",
        "platlib/rich_plat.py": "",
    },
    entry_points=(
        "[console_scripts]\nrich = rich_demo:main\nRich-2 = rich_demo:main [some-extra]\n"
        "[gui_scripts]\nrich-gui = rich_demo:main\n[other.group]\nx = rich_demo\n"
    ),
)
# RECORD has other paths and hashes for the scripts, INSTALLER names its installer, the others say how uv was called.
UVS_OWN = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock"}


def installed_by_uv(wheel: tuple[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    file = folder / wheel[0]
    file.write_bytes(wheel[1])
    target = folder / "target"
    options = ("--no-config", "--offline", "--no-index", "--no-deps", "--no-cache", "--quiet")
    command: list[str | Path] = [uv.find_uv_bin(), "pip", "install", *options, "--python", this_python().path]
    subprocess.run([*command, "--target", target, file], check=True)
    return target


def unpacked(wheel: tuple[str, bytes], folder: Path) -> Path:
    tree = folder / "tree"
    unpack(put(folder / "store", wheel), wheel[0], MINOR, tree)
    return tree


def as_target(tree: Path) -> dict[str, tuple[bytes, bool]]:
    """The tree's files by the paths that they have under uv's target."""
    return {path.removeprefix("site-packages/"): content for path, content in files_of(tree).items()}


def comparable(files: dict[str, tuple[bytes, bool]], entry_points: set[str]) -> dict[str, tuple[bytes, bool]]:
    """Without uv's own files; scripts without their first line, entry points' without their text."""
    kept = {path: file for path, file in files.items() if path.rpartition("/")[2] not in UVS_OWN}
    for path in [path for path in kept if path.startswith("bin/") and kept[path][1]]:
        kept[path] = (b"" if path in entry_points else kept[path][0].partition(b"\n")[2], True)
    return kept


def test_tree_is_that_of_uv_with_bin_set_apart(tmp_path: Path) -> None:
    scripts = {"bin/rich", "bin/Rich-2", "bin/rich-gui"}
    ours = comparable(as_target(unpacked(RICH, tmp_path)), scripts)
    uvs = comparable(files_of(installed_by_uv(RICH, tmp_path / "uv")), scripts)
    # uv installs byte-code that a wheel brings; nobody checks that it is its source's.
    del uvs["rich_demo/__pycache__/__init__.cpython-312.pyc"]
    assert ours == uvs


@pytest.mark.real_index
@pytest.mark.parametrize(
    ("project", "scripts"),
    [
        ("ruff==0.14.0", set()),  # a program in .data/scripts
        ("httpx==0.28.1", {"bin/httpx"}),
        ("pyyaml==6.0.3", set()),
        ("jmespath==1.0.1", set()),  # a #!python script in .data/scripts
    ],
)
def test_tree_of_a_real_wheel_is_that_of_uv(project: str, scripts: set[str], tmp_path: Path) -> None:
    command: list[str | Path] = [
        this_python().path,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "--dest", tmp_path / "wheels", project], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"the index cannot be reached: {done.stderr[-300:]}")
    (file,) = (tmp_path / "wheels").iterdir()
    wheel = (file.name, file.read_bytes())
    ours = comparable(as_target(unpacked(wheel, tmp_path)), scripts)
    assert ours == comparable(files_of(installed_by_uv(wheel, tmp_path / "uv")), scripts)


def test_record_names_all_that_was_installed(tmp_path: Path) -> None:
    tree = unpacked(RICH, tmp_path)
    packages = tree / "site-packages"
    rows = list(csv.reader((packages / "rich_demo-1.0.dist-info/RECORD").read_text().splitlines()))
    named = {(packages / row[0]).resolve().relative_to(tree.resolve()).as_posix() for row in rows}
    assert named == set(files_of(tree))
    assert len(rows) == len(named)
    assert all(row[1].startswith("sha256=") and row[2].isdigit() for row in rows if not row[0].endswith("/RECORD"))


def test_installer_is_lockstep_and_nothing_says_how_it_was_asked(tmp_path: Path) -> None:
    content = raw_wheel(
        *((f"demo-1.0.dist-info/{name}", b"pip") for name in ("INSTALLER", "REQUESTED", "direct_url.json"))
    )
    tree = unpacked((DEMO, content), tmp_path)
    assert {path.name: path.read_text() for path in (tree / "site-packages/demo-1.0.dist-info").iterdir()}.keys() == {
        "INSTALLER",
        "METADATA",
        "WHEEL",
        "RECORD",
    }
    assert (tree / "site-packages/demo-1.0.dist-info/INSTALLER").read_text().strip() == "lockstep"


def test_case_is_kept(tmp_path: Path) -> None:
    content = raw_wheel(("demo/Data.py", b"A = 1"), ("demo/data.py", b"a = 1"), ("demo/naïve.py", b""))
    files = files_of(unpacked((DEMO, content), tmp_path))
    assert files["site-packages/demo/Data.py"] != files["site-packages/demo/data.py"]
    assert "site-packages/demo/naïve.py" in files


def test_utf8_names_need_no_flag(tmp_path: Path) -> None:
    # zipfile flags a name that is not ASCII; a tool that does not leaves the bytes as they are here.
    content = bytearray(raw_wheel(("demo/naïve.py", b"x = 1")))
    for signature, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + offset] &= ~0x08
    assert "site-packages/demo/naïve.py" in files_of(unpacked((DEMO, bytes(content)), tmp_path))


def test_scripts_of_data_get_an_interpreter_found_by_env(tmp_path: Path) -> None:
    files = files_of(unpacked(RICH, tmp_path))
    for script in ("plain", "windowed"):
        assert files[f"bin/{script}"][0].startswith(f"#!/usr/bin/env python{MINOR}\n".encode())
    assert files["bin/shell"][0].startswith(b"#!/bin/sh\n")
    assert all(files[f"bin/{script}"][1] for script in ("plain", "windowed", "shell", "rich"))


def test_entry_point_replaces_a_script_of_its_name(tmp_path: Path) -> None:
    files = files_of(unpacked(RICH, tmp_path))
    assert b"rich_demo" in files["bin/rich"][0]
    assert "bin/rich-script.py" not in files


def test_large_program_among_the_scripts_is_left_as_it_is(tmp_path: Path) -> None:
    program = b"\x7fELF" + bytes(17 << 20)
    tree = unpacked((DEMO, raw_wheel(("demo-1.0.data/scripts/program", program))), tmp_path)
    assert files_of(tree)["bin/program"] == (program, True)
