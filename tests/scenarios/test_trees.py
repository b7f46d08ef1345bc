"""A fetched tree is what `uv pip install --target` makes of the same lock, and its byte-code is what Python runs."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import pytest

from resolver.client.build import archive
from tests.scenarios.conftest import INTERPRETER, everything_a_wheel_can_hold
from tests.support.index import PackageIndex
from tests.support.plain_uv import PlainUv
from tests.support.real_index import each_set, requirements
from tests.support.service import Service

# Where the two trees may differ, and why. Everything else is equal: paths, bytes and executable bits.
IN_BOTH_BUT_NOT_EQUAL: Mapping[str, str] = {
    r"[^/]+\.dist-info/RECORD": "lists the files of its tree with their hashes, those below included, and is written "
    "anew where uv changes the wheel's own, whose mode it keeps",
    r"[^/]+\.dist-info/INSTALLER": "names who installed it",
    r"bin/.*": "a script's `#!` names an interpreter, a launcher is each installer's own; what they start is compared",
}
IN_FETCHED_ALONE: Mapping[str, str] = {
    r"(.*/)?__pycache__/.*\.pyc": "byte-code, which uv leaves to the first import",
    r"sitecustomize\.py": "the hook that reads `.pth` files on PYTHONPATH, where Python does not",
}
IN_INSTALLED_ALONE: Mapping[str, str] = {
    r"[^/]+\.dist-info/REQUESTED": "marks what was asked for by name; a layer is the same whoever asks for it",
    r"\.lock": "uv's own, against two runs of it at once",
}

_COMPILED = re.compile(r"^# code object from (?P<source>/.*\.py)$", re.MULTILINE)
_LOCK = re.compile(r"lock (sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class File:
    """A file as a tree has it; `content` is its hash."""

    content: str
    executable: bool


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as an init container has it."""
    pyz = tmp_path_factory.mktemp("client") / "lockstep.pyz"
    pyz.write_bytes(archive())
    return pyz


@pytest.mark.real_index
@each_set()
def test_a_real_set(name: str, client: Path, real_service: Service, judge: PlainUv, scratch: Path) -> None:
    _fetch_and_install(client, requirements(name), real_service, PlainUv(judge.folder), scratch)
    _assert_equal(scratch)
    _assert_runs_its_bytecode(scratch, count_counts=name == "requests")


def test_wheels_with_all_that_they_can_hold(client: Path, scratch: Path) -> None:
    with PackageIndex() as index:
        wanted = everything_a_wheel_can_hold(index)
        with Service(scratch / "data", index_url=index.url, flags=INTERPRETER) as service:
            _fetch_and_install(client, wanted, service, PlainUv(scratch / "uv"), scratch)
    _assert_equal(scratch)
    _assert_runs_its_bytecode(scratch, count_counts=True)


def _fetch_and_install(client: Path, wanted: str, service: Service, uv: PlainUv, scratch: Path) -> None:
    """The same lock, as `fetched` and as `installed`."""
    lock = _fetch(client, wanted, service, scratch / "fetched")
    with service.client() as http:
        (scratch / "pylock.toml").write_bytes(http.get(f"/v1/locks/{lock}/pylock.toml").content)
    uv.install(scratch / "pylock.toml", scratch / "installed")


def _fetch(client: Path, wanted: str, service: Service, target: Path) -> str:
    """Bring the bundle of these requirements; returns the digest of its lock."""
    argv = [sys.executable, "-I", "-S", str(client), "fetch", "--server", service.url, "--target", str(target)]
    done = subprocess.run([*argv, "-r", "-"], input=wanted, capture_output=True, text=True, check=False)
    if done.returncode == 65 and "source distribution" in done.stderr:
        pytest.skip(f"on this platform the set needs a build: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found = _LOCK.search(done.stderr)
    assert found is not None, done.stderr
    return found[1]


def _assert_equal(scratch: Path) -> None:
    programs = {f"bin/{path}": file for path, file in _files(scratch / "fetched" / "bin").items()}
    site_packages = _files(scratch / "fetched" / "site-packages")
    assert not site_packages.keys() & programs.keys()
    fetched = _without(IN_FETCHED_ALONE, site_packages | programs)
    installed = _without(IN_INSTALLED_ALONE, _files(scratch / "installed"))

    assert sorted(fetched) == sorted(installed)
    differing = {path: file for path, file in fetched.items() if file != installed[path]}
    assert sorted(_without(IN_BOTH_BUT_NOT_EQUAL, differing)) == []

    launchers = _launchers(scratch / "fetched" / "site-packages")
    for path in programs:
        assert fetched[path].executable and installed[path].executable, path
        texts = [(scratch / tree / path).read_bytes() for tree in ("fetched", "installed")]
        if point := launchers.get(path.removeprefix("bin/")):
            module, _, attribute = point.partition(":")
            started = f"from {module} import {attribute.partition('.')[0]}".encode()
            assert all(started in text for text in texts), path
        else:
            assert len({_behind_its_shebang(text) for text in texts}) == 1, path


def _files(tree: Path) -> dict[str, File]:
    return {
        path.relative_to(tree).as_posix(): File(_hash(path), bool(path.stat().st_mode & 0o100))
        for path in tree.rglob("*")
        if path.is_file()
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without(exceptions: Mapping[str, str], tree: Mapping[str, File]) -> dict[str, File]:
    excepted = re.compile("|".join(exceptions))
    return {path: file for path, file in tree.items() if not excepted.fullmatch(path)}


def _launchers(site_packages: Path) -> dict[str, str]:
    """The console scripts that the installed distributions name, with what each starts."""
    points = (point for found in distributions(path=[str(site_packages)]) for point in found.entry_points)
    return {point.name: point.value.partition(" ")[0] for point in points if point.group.endswith("_scripts")}


def _behind_its_shebang(content: bytes) -> bytes:
    return content.partition(b"\n")[2] if content.startswith(b"#!") else content


def _assert_runs_its_bytecode(scratch: Path, *, count_counts: bool) -> None:
    """Import every top-level module in a fresh process: no source of the tree is compiled, nothing is written. The
    proof that such a count is not blind (`count_counts`) costs what byte-code saves."""
    root = (scratch / "fetched" / "site-packages").resolve()
    modules = sorted(_top_level(root))
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = _state(root)

    assert _compiled(root, modules, scratch) == set()
    assert _state(root) == before
    if count_counts:  # with byte-code looked for elsewhere, the sources are compiled
        assert _compiled(root, modules, scratch, f"-Xpycache_prefix={scratch / 'elsewhere'}") != set()
        assert _state(root) == before


def _top_level(site_packages: Path) -> Iterator[str]:
    for path in site_packages.iterdir():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem
        elif (path / "__init__.py").is_file():
            yield path.name


def _compiled(root: Path, modules: list[str], scratch: Path, *options: str) -> set[str]:
    """The sources under `root` that an interpreter compiles as it imports the modules, each of which it takes there."""
    program = (
        "import importlib, json, sys\n"
        "print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))\n"
    )
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-s", "-v", "-W", "ignore", *options, "-c", program, *modules],
        env={"PYTHONPATH": str(root), "HOME": str(home), "PATH": ""},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    imported = json.loads(done.stdout.splitlines()[-1])
    assert [name for name, file in imported.items() if not Path(file).is_relative_to(root)] == []
    return {source for source in _COMPILED.findall(done.stderr) if Path(source).is_relative_to(root)}


def _state(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}
