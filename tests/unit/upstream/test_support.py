"""The index and the wheels that other tests stand on are themselves what they claim to be."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from installer.sources import WheelFile

from tests.support.index import Fault, PackageIndex
from tests.support.wheels import make_sdist, make_wheel

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}


def get(url: str, headers: dict[str, str] | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=2) as answer:
        body: bytes = answer.read()
        return body


def test_a_wheel_is_valid_and_the_same_every_time(tmp_path: Path) -> None:
    def make() -> tuple[str, bytes]:
        return make_wheel(
            "Demo-App", "1.0", requires=["other>=2"], extras=["x"], entry_points="[console_scripts]\ndemo=demo_app:f\n"
        )

    filename, content = make()
    assert (filename, content) == make()
    assert filename == "demo_app-1.0-py3-none-any.whl"
    (tmp_path / filename).write_bytes(content)
    with zipfile.ZipFile(tmp_path / filename) as archive:
        WheelFile(archive).validate_record()
        assert "Requires-Dist: other>=2" in archive.read("demo_app-1.0.dist-info/METADATA").decode()
        assert {"demo_app/__init__.py", "demo_app-1.0.dist-info/entry_points.txt"} < set(archive.namelist())


def test_an_sdist_is_the_same_every_time() -> None:
    filename, content = make_sdist("old", "0.1", setup_py="raise SystemExit('ran')\n")
    assert (filename, content) == make_sdist("old", "0.1", setup_py="raise SystemExit('ran')\n")
    assert filename == "old-0.1.tar.gz"


def test_pages_files_metadata_and_ranges() -> None:
    filename, content = make_wheel("demo", "1.0", requires_python=">=3.9")
    with PackageIndex() as index:
        index.add(filename, content, yanked="broken", query="sig=abc")
        page = json.loads(get(f"{index.url}/demo/", JSON))
        (entry,) = page["files"]
        assert entry["yanked"] == "broken"
        assert entry["requires-python"] == ">=3.9"
        assert entry["size"] == len(content)
        assert b'href="../../files/demo-1.0-py3-none-any.whl?sig=abc#sha256=' in get(f"{index.url}/demo/")
        file = f"http://127.0.0.1:{index.port}/files/{filename}"
        assert get(f"{file}?sig=abc") == content
        assert get(f"{file}?sig=abc", {"Range": "bytes=-10"}) == content[-10:]
        assert get(f"{file}.metadata?sig=abc").startswith(b"Metadata-Version")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(file)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{index.url}/absent/")
        assert index.count("?sig=abc") == 3


@pytest.mark.parametrize("kind", ["500", "404", "garbage", "half", "hang", "refuse", "wrong-bytes"])
def test_every_fault_spoils_an_answer_as_often_as_asked(kind: Fault) -> None:
    filename, content = make_wheel("demo", "1.0")
    with PackageIndex() as index:
        index.add(filename, content)
        index.fault(filename, kind, times=1)
        url = f"http://127.0.0.1:{index.port}/files/{filename}"
        try:
            spoilt = urllib.request.urlopen(url, timeout=0.2).read()
        except OSError as error:
            error.close() if isinstance(error, urllib.error.HTTPError) else None
            spoilt = b""
        except Exception as error:  # http.client's own kinds for cut-off answers
            spoilt = str(error).encode()
        assert spoilt != content
        assert get(url) == content


def test_a_slow_answer_drips() -> None:
    filename, content = make_wheel("demo", "1.0")
    with PackageIndex() as index:
        index.add(filename, content)
        index.fault(filename, "slow")
        with urllib.request.urlopen(f"http://127.0.0.1:{index.port}/files/{filename}", timeout=2) as answer:
            assert answer.read(2) == content[:2]


def test_the_real_clients_install_from_it(tmp_path: Path) -> None:
    with PackageIndex(auth=("user", "secret")) as index:
        index.add(*make_wheel("app", "1.0", requires=["lib"]))
        index.add(*make_wheel("lib", "2.0"), query="sig=abc")
        for client in (["uv", "pip", "install", "--no-config", "--no-cache"], ["pip", "install", "--no-cache-dir"]):
            target = tmp_path / client[0]
            python = ["--python", sys.executable] if client[0] == "uv" else ["--isolated"]
            command = [sys.executable, "-m", *client, *python, "--target", str(target), "--index-url"]
            ran = subprocess.run([*command, index.url_with_auth, "app"], capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, ran.stderr
            assert (target / "lib" / "__init__.py").read_text() == '__version__ = "2.0"\n'
