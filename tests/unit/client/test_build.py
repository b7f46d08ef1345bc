"""The zipapp: equal sources, equal bytes, and nothing in it but the client."""

import subprocess
import sys
import zipfile
from pathlib import Path

from resolver.client.build import archive


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
    assert {name.rpartition("/")[0] for name in names} == {"", "resolver", "resolver/client"}


def test_help_tells_of_every_flag(pyz: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-I", "-S", str(pyz), "fetch", "--help"], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0
    for flag in ("--server", "--target", "-r", "-c", "--requirement", "--on-failure", "--token-file", "--ca-file"):
        assert flag in told.stdout
