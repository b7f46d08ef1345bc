"""Real source distributions from the real index, built in the real sandbox."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.client.environment import libc
from resolver.domain.targets import TargetEnvironment
from tests.support.builders import builder_service, needs_builders
from tests.support.interpreters import THIS
from tests.support.real_index import MOMENT
from tests.support.sandbox import needs_sandbox
from tests.support.service import ROOT, Service

pytestmark = [pytest.mark.real_index]

INTERPRETER = ("--interpreter", f"{THIS}={sys.executable}")
MUSL = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
THIS_CLASS = TargetEnvironment.from_markers(
    {"python_full_version": THIS, "platform_machine": platform.machine()}, libc()
)
# Each has no wheel on the index; with what they import as. A zip, namespaces, scripts and data are among them.
PURE = {
    "wsgi-request-logger==0.4.6": "requestlogger",
    "docopt==0.6.2": "docopt",
    "future==0.18.2": "future",
    "sgmllib3k==1.0.0": "sgmllib",
    "pypika==0.48.9": "pypika",
    "antlr4-python3-runtime==4.9.3": "antlr4",
    "wget==3.2": "wget",
    "pyperclip==1.8.2": "pyperclip",
    "langdetect==1.0.9": "langdetect",
    "validators==0.20.0": "validators",
    "emoji==1.7.0": "emoji",
}


@pytest.fixture(scope="module")
def building(real_index: str, kept: Path) -> Iterator[Service]:
    """A service on the real index, its default settings otherwise."""
    with Service(kept / "building", index_url=real_index, flags=INTERPRETER) as started:
        yield started


@needs_sandbox
@pytest.mark.parametrize("requirement", PURE)
def test_a_pure_sdist_locks_builds_bundles_and_imports(building: Service, requirement: str, tmp_path: Path) -> None:
    built = the_build(building, ask(building, requirement, MUSL), requirement)
    assert built["wheel"].endswith("-none-any.whl")

    argv = [sys.executable, "-m", "resolver", "fetch", "--server", building.url, "--target", str(tmp_path / "deps")]
    fetched = subprocess.run(
        [*argv, "--requirement", requirement, "--timeout", "300"], cwd=ROOT, capture_output=True, text=True
    )
    assert fetched.returncode == 0, fetched.stderr
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "deps/site-packages")}
    imports = [sys.executable, "-S", "-c", f"import {PURE[requirement]}"]
    assert subprocess.run(imports, env=environment, cwd=tmp_path).returncode == 0


@needs_sandbox
def test_two_stores_have_equal_wheels(building: Service, real_index: str, tmp_path: Path) -> None:
    differing = []
    with Service(tmp_path / "data", index_url=real_index) as another:
        for requirement in PURE:
            one, two = (the_build(each, ask(each, requirement, MUSL), requirement) for each in (building, another))
            assert one["reproducible"] == two["reproducible"]
            if one["reproducible"] and one["hash"] != two["hash"]:
                differing.append(requirement)
    assert differing == []


@needs_sandbox
@needs_builders
def test_builders_have_equal_wheels(building: Service, real_index: str, tmp_path: Path) -> None:
    """Where a wheel is built is nothing that shows in it."""
    with builder_service(tmp_path / "data", real_index, places=["any"]) as another:
        for requirement in ("docopt==0.6.2", "emoji==1.7.0"):
            one, two = (the_build(each, ask(each, requirement, MUSL), requirement) for each in (building, another))
            assert one["hash"] == two["hash"]


@needs_sandbox
def test_what_another_needs_to_be_compiled_is_named(building: Service) -> None:
    """alt-profanity-check is built; the scikit-learn that it pins has no wheel, and is not for any platform."""
    problem = building.resolve("alt-profanity-check==1.1.2", target=MUSL, exclude_newer=MOMENT).json()
    assert problem["type"].endswith(":build-required")
    assert (problem["package"], problem["version"]) == ("scikit-learn", "1.1.2")
    assert any("builds: native" in hint for hint in problem["hints"])
    built = [event for event in building.events() if event.get("event") == "build.done"]
    assert ("alt-profanity-check", "1.1.2") in [(event["package"], event["version"]) for event in built]


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
NATIVE = [*INTERPRETER, "--builds", "native"]


@needs_compiler
@needs_sandbox
def test_native_ones_are_built_for_this_machine(real_index: str, tmp_path: Path) -> None:
    """Both have extensions in C, and no wheel for Linux; one of them can do without, elsewhere."""
    with Service(tmp_path / "data", index_url=real_index, flags=NATIVE) as service:
        fetch_and_use(
            service, tmp_path, ["crcmod==1.7", _COMPILED], "from crcmod import _crcfunext; import Levenshtein"
        )
        problem = service.resolve(_COMPILED, target=MUSL, exclude_newer=MOMENT).json()
        elsewhere = service.resolve("crcmod==1.7", target=MUSL, exclude_newer=MOMENT).json()
    assert [package["wheel"] for package in elsewhere["lock"]["packages"]] == ["crcmod-1.7-py3-none-any.whl"]
    assert problem["type"].endswith(":build-required")
    assert any("no builder for cp312-musllinux_1_2_x86_64" in hint for hint in problem["hints"])


@needs_compiler
@needs_builders
def test_a_builder_builds_a_native_one(real_index: str, tmp_path: Path) -> None:
    places = ["any", THIS_CLASS.name]
    with builder_service(tmp_path / "data", real_index, places=places, flags=NATIVE) as service:
        fetch_and_use(service, tmp_path, [_COMPILED], "import Levenshtein")
        problem = service.resolve(_COMPILED, target=MUSL, exclude_newer=MOMENT).json()
    assert problem["type"].endswith(":build-required")
    assert any("no builder image for cp312-musllinux_1_2_x86_64" in hint for hint in problem["hints"])


_COMPILED = "python-Levenshtein==0.12.2"


def fetch_and_use(service: Service, folder: Path, requirements: list[str], program: str) -> None:
    argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(folder / "deps")]
    argv += [word for requirement in requirements for word in ("--requirement", requirement)]
    fetched = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    environment = {**os.environ, "PYTHONPATH": str(folder / "deps/site-packages")}
    assert subprocess.run([sys.executable, "-S", "-c", program], env=environment, cwd=folder).returncode == 0


def ask(service: Service, requirement: str, target: dict[str, str]) -> dict[str, Any]:
    # At no moment of the past: what `fetch` asks for has the same build.
    answer: dict[str, Any] = service.resolve(requirement, target=target).json()
    assert "lock" in answer, answer
    return answer


def the_build(service: Service, answer: dict[str, Any], requirement: str) -> dict[str, Any]:
    name, _, version = requirement.partition("==")
    with service.client() as client:
        packages = client.get(f"/v1/locks/{answer['lock']['digest']}").json()["packages"]
    [[built]] = [package["builds"] for package in packages if (package["name"], package["version"]) == (name, version)]
    return dict(built)
