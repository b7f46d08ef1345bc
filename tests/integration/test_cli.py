"""The one program, from end to end: the real service, the real client, a real index on loopback."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import ROOT, Service

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def service(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("service") / "data"
    flags = ["--interpreter", f"{PYTHON}={sys.executable}"]
    environment = {"LOCKSTEP_REFUSALS_FOR": "0s", "LOCKSTEP_INDEX_TIMEOUT": "2s"}
    with Service(data, index_url=index.url, flags=flags, environment=environment) as started:
        yield started


def lockstep(service: Service, *arguments: str, code: int = 0) -> str:
    """Run the program; returns what it printed, its log if it was to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "resolver", *arguments, "--server", service.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def fetch(service: Service, target: Path, *requirements: str, revision: str = "r1", code: int = 0) -> str:
    """Run `lockstep fetch` for the workload shop/checkout."""
    asked = [word for requirement in requirements for word in ("--requirement", requirement)]
    name = ["--namespace", "shop", "--workload", "checkout", "--revision", revision]
    return lockstep(service, "fetch", "--target", str(target), *asked, *name, code=code)


def run(target: Path, *argv: str) -> str:
    """What a function's container does with the target: python with it on PYTHONPATH."""
    done = subprocess.run(
        [sys.executable, "-s", *argv],
        env={"PYTHONPATH": str(target / "site-packages"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_workload_from_the_first_fetch_to_a_rollback(service: Service, index: PackageIndex, tmp_path: Path) -> None:
    publish(
        index,
        "greeter",
        "1.0",
        entry_points="[console_scripts]\ngreet = greeter:main\n",
        files={
            "greeter/__init__.py": "def main():\n    import words\n    print('hello', words.__version__)\n",
            "greeter.pth": "import sys; sys.greeter_pth = True\n",
        },
        requires=["words"],
    )
    publish(index, "words", "1.0")

    fetch(service, tmp_path / "one", "greeter")
    fetch(service, tmp_path / "two", "greeter")
    assert run(tmp_path / "one", "-c", "import words; print(words.__version__)") == "1.0"
    assert run(tmp_path / "one", "-c", "import sys; print(sys.greeter_pth)") == "True"
    assert (
        subprocess.run([tmp_path / "two" / "bin" / "greet"], capture_output=True, text=True, check=True).stdout
        == "hello 1.0\n"
    )
    assert (tmp_path / "one/.lockstep/current").readlink() == (tmp_path / "two/.lockstep/current").readlink()

    publish(index, "words", "2.0")
    fetch(service, tmp_path / "scaled-out", "greeter", revision="r2")
    assert run(tmp_path / "scaled-out", "-c", "import words; print(words.__version__)") == "1.0"
    old = json.loads(lockstep(service, "pins", "--namespace", "shop", "--json"))["items"][0]["lock"]

    lockstep(service, "refresh", "--namespace", "shop", "--workload", "checkout")
    fetch(service, tmp_path / "two", "greeter", revision="r3")
    assert run(tmp_path / "two", "-c", "import words; print(words.__version__)") == "2.0"
    new = json.loads(lockstep(service, "pins", "--namespace", "shop", "--json"))["items"][0]["lock"]
    difference = json.loads(lockstep(service, "diff", old, new, "--json"))
    assert difference["changed"] == [{"name": "words", "from": "1.0", "to": "2.0"}]
    assert "words" in lockstep(service, "diff", old, new)

    lockstep(service, "hold", "--namespace", "shop", "--workload", "checkout", "--lock", old)
    fetch(service, tmp_path / "two", "greeter", revision="r4")
    assert run(tmp_path / "two", "-c", "import words; print(words.__version__)") == "1.0"


def test_inspection(service: Service, index: PackageIndex, tmp_path: Path) -> None:
    publish(index, "top", "1.0", requires=["middle>=1"])
    publish(index, "middle", "1.5", requires=["bottom<3"])
    publish(index, "bottom", "2.0")
    (tmp_path / "requirements.txt").write_text("top\n")
    lockstep(service, "lock", "-r", str(tmp_path / "requirements.txt"), "-o", str(tmp_path / "pylock.toml"))

    pylock = tomllib.loads((tmp_path / "pylock.toml").read_text())
    assert [package["name"] for package in pylock["packages"]] == ["bottom", "middle", "top"]
    (item,) = json.loads(lockstep(service, "locks", "--package", "bottom", "--json"))["items"]
    shown = json.loads(lockstep(service, "show", item["digest"], "--json"))
    assert {package["name"]: package["dependencies"] for package in shown["packages"]} == {
        "bottom": [],
        "middle": ["bottom"],
        "top": ["middle"],
    }
    (path,) = json.loads(lockstep(service, "why", item["digest"], "bottom", "--json"))["paths"]
    assert [step["requirement"] for step in path] == ["top", "middle>=1", "bottom<3"]
    table = lockstep(service, "show", item["digest"][7:19])
    assert all(name in table for name in ("top", "middle", "bottom"))
    assert "middle>=1" in lockstep(service, "why", item["digest"], "bottom")


@pytest.mark.parametrize(
    ("requirement", "code", "said"),
    [
        ("-e .", 65, "editable"),
        ("no-such-project-anywhere", 65, "no-such-project-anywhere"),
        ("broken-index", 69, "index"),
        ("wrong-bytes", 76, "wrong_bytes"),
    ],
)
def test_fetch_says_why_and_exits_so(
    service: Service, index: PackageIndex, tmp_path: Path, requirement: str, code: int, said: str
) -> None:
    publish(index, "broken-index", "1.0")
    filename = publish(index, "wrong-bytes", "1.0")
    index.fault("/simple/broken-index/", "500")
    index.fault(f"/{filename}$", "wrong-bytes")
    try:
        asked = ["--timeout", "15", "--requirement", requirement]
        told = lockstep(service, "fetch", "--target", str(tmp_path / "deps"), *asked, code=code)
    finally:
        index.clear_faults()
    assert said in told
    assert not (tmp_path / "deps" / "site-packages").exists()


def test_fallback_lets_pip_do_what_it_did_before(service: Service, tmp_path: Path) -> None:
    source = "no-such-project-anywhere\n"
    (tmp_path / "requirements.txt").write_text(source)
    arguments = ["-r", str(tmp_path / "requirements.txt"), "--on-failure", "fallback", "--timeout", "4"]
    lockstep(service, "fetch", "--target", str(tmp_path / "deps"), *arguments)
    assert (tmp_path / "deps" / "requirements.txt").read_text() == source
