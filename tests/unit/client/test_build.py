"""The zipapp: equal sources, equal bytes, and nothing in it but the client."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from resolver.client.build import archive
from tests.unit.client.conftest import interpreter


def test_equal_sources_give_equal_bytes(tmp_path: Path) -> None:
    path = tmp_path / "dist" / "lockstep.pyz"
    subprocess.run([sys.executable, "-m", "resolver.client.build", str(path)], check=True, timeout=60)
    assert path.read_bytes() == archive()
    assert path.stat().st_mode & 0o111


def test_it_holds_the_client_alone(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as zipped:
        names = zipped.namelist()
        assert zipped.read("resolver/__init__.py") == b""
    assert names == sorted(names)
    assert "resolver/client/build.py" not in names
    tag = sys.implementation.cache_tag
    packages = {"resolver", "resolver/client"}
    assert {name.rpartition("/")[0] for name in names} == {"", *packages, *(f"{tag}/{each}" for each in packages)}


def test_the_byte_code_of_a_python_is_what_it_runs(pyz: Path) -> None:
    path = f"{pyz}/{sys.implementation.cache_tag}"
    code = f"import sys; sys.path.insert(0, {path!r}); import resolver.client.fetch as m; "
    argv = [sys.executable, "-I", "-S", "-c", code + "print(m.__file__, m.__doc__)"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == f"{path}/resolver/client/fetch.pyc None\n"


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14", "3.15"])
def test_a_python_that_is_named_gets_byte_code_of_its_own(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    content = archive([python])
    assert content == archive([python])
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        compiled = [name for name in zipped.namelist() if name.endswith(".pyc")]
    assert f"cpython-{version.replace('.', '')}/resolver/client/fetch.pyc" in compiled
    assert {name.partition("/")[0] for name in compiled} == {f"cpython-{version.replace('.', '')}"}


def test_a_python_that_cannot_compile_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        archive(["/bin/false"])


def test_help_tells_of_every_flag(pyz: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-I", "-S", str(pyz), "fetch", "--help"], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0
    for flag in ("--server", "--target", "-r", "-c", "--requirement", "--on-failure", "--token-file", "--ca-file"):
        assert flag in told.stdout
