"""What the tests of bundles share: interpreters, wheels written entry by entry, trees read back."""

import base64
import functools
import glob
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from resolver.bundles.archive import DEFAULT_LIMITS, Limits
from resolver.bundles.bytecode import compiled
from resolver.bundles.compilers import Compilers
from resolver.bundles.pack import Member, Packed, write_layer
from resolver.bundles.tree import File, Tree, members
from resolver.bundles.unpack import unpacked
from resolver.domain.targets import PYTHONS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
DEMO = "demo-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class Python:
    """An interpreter of this machine."""

    path: Path
    version: str
    magic: str


@functools.cache
def pythons() -> dict[str, Python]:
    """The interpreters at hand by minor version: the one that runs the tests, those on PATH, those that pyenv has."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [sys.executable]
    candidates += filter(None, (shutil.which(f"python3.{minor}") for minor in range(10, 16)))
    candidates += sorted(glob.glob(f"{root}/versions/*/bin/python3"))
    code = "import sys, importlib.util as u; print('.'.join(map(str, sys.version_info[:3])), u.MAGIC_NUMBER.hex())"
    found: dict[str, Python] = {}
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            version, magic = done.stdout.split()
            minor = version.rpartition(".")[0]
            if minor in PYTHONS:
                found.setdefault(minor, Python(Path(candidate), version, magic))
    return found


def this_python() -> Python:
    return pythons()[MINOR]


def record(members: Sequence[tuple[str, bytes]], name: str = "demo-1.0.dist-info/RECORD") -> bytes:
    lines = []
    for path, content in members:
        value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={value},{len(content)}\n")
    return "".join([*lines, f"{name},,\n"]).encode()


def raw_wheel(
    *extra: tuple[str | zipfile.ZipInfo, bytes],
    without: str | None = None,
    replaced: Mapping[str, bytes] | None = None,
    recorded: bool = True,
) -> bytes:
    """The wheel demo 1.0 with these entries beside its own (in RECORD or not); one of those left out or replaced."""
    own = {"METADATA": METADATA, "WHEEL": WHEEL}
    members: list[tuple[str | zipfile.ZipInfo, bytes]] = [("demo/__init__.py", b"")]
    members += [(f"demo-1.0.dist-info/{name}", (replaced or {}).get(name, content)) for name, content in own.items()]
    members += extra
    named = [(name if isinstance(name, str) else name.orig_filename, content) for name, content in members]
    lines = record(named if recorded else named[:3])
    members.append(("demo-1.0.dist-info/RECORD", (replaced or {}).get("RECORD", lines)))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            if info.orig_filename == f"demo-1.0.dist-info/{without}":
                continue
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = info.external_attr or 0o100644 << 16
            archive.writestr(info, body)
    return content.getvalue()


def many_modules(count: int) -> dict[str, str]:
    """Sources with the things whose byte-code has been seen to vary: sets, names that recur, nested functions."""
    return {
        f"big/part{number % 40:02}/module_{number:05}.py": (
            f"import os, sys\nNAMES = {{'alpha', 'beta', 'gamma', 'name{number % 17}'}}\n"
            f"class Thing{number % 11}:\n    '''A thing.'''\n    size = {number}\n"
            f"    def method(self, value, *, other=('a', 'b', {number})):\n"
            f"        def inner(x):\n            return x in {{'alpha', 'omega', {number}}}\n"
            f"        return [inner(v) for v in (value, other, self.size, 'name{number % 13}')]\n"
        )
        for number in range(count)
    }


def put(folder: Path, wheel: tuple[str, bytes]) -> Path:
    """The wheel as a file, named by no wheel's name, as in a blob store."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(wheel[1]).hexdigest()
    path.write_bytes(wheel[1])
    return path


def unpack(wheel: Path, filename: str, python: str, target: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """The wheel's tree, as a folder."""
    with unpacked(wheel, filename, python, limits) as tree, closing(members(tree)) as found:
        write_out(found, target)


def write_out(found: Iterable[Member], target: Path) -> None:
    for member in found:
        path = target / member.name
        if member.stream is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        content = bytearray()
        while len(content) < member.size:
            content += member.stream.read(member.size - len(content))
        path.write_bytes(content)
        path.chmod(0o755 if member.executable else 0o644)


def read_in(folder: Path) -> Tree:
    """A folder's files as a tree."""

    def file(path: Path) -> File:
        def opened() -> AbstractContextManager[BinaryIO]:
            return path.open("rb")

        return File(path.stat().st_size, opened, bool(path.stat().st_mode & 0o100))

    return {path.relative_to(folder).as_posix(): file(path) for path in folder.rglob("*") if path.is_file()}


def compile_tree(folder: Path, interpreter: Path, *, jobs: int, compilers: Compilers | None = None) -> None:
    """Write the byte-code of the tree in this folder beside its sources; by these compilers, or by new ones."""
    used = compilers or Compilers()
    try:
        with (
            tempfile.TemporaryDirectory() as staging,
            compiled(read_in(folder), interpreter, Path(staging), jobs, used) as bytecode,
        ):
            write_out(members(bytecode), folder)
    finally:
        if compilers is None:
            used.close()


def pack(folder: Path, target: Path) -> Packed:
    """The tree in this folder as a layer."""
    return write_layer(members(read_in(folder)), target)


def files_of(tree: Path) -> dict[str, tuple[bytes, bool]]:
    """Path → content and whether it is executable, of every regular file."""
    return {
        path.relative_to(tree).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in tree.rglob("*")
        if path.is_file()
    }


def plain_tar(layer: Path) -> bytes:
    return zstd.decompress(layer.read_bytes())


def extract(layer: Path, target: Path) -> Path:
    """The layer's tree, written by `tarfile`."""
    with tarfile.open(fileobj=io.BytesIO(plain_tar(layer))) as tar:
        tar.extractall(target, filter="data")
    return target


def path_with(folder: Path, python: Python, minor: str = MINOR) -> str:
    """A PATH on which `python3.X` is this interpreter, outside of any virtual environment."""
    folder.mkdir(exist_ok=True)
    real = subprocess.run(
        [python.path, "-c", "import sys; print(sys._base_executable)"], capture_output=True, text=True, check=True
    )
    (folder / f"python{minor}").symlink_to(real.stdout.strip())
    return f"{folder}:/usr/bin:/bin"
