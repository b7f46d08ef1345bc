"""What an interpreter says of itself."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment

from resolver.client import environment
from resolver.client.errors import Refused
from resolver.domain.targets import TargetEnvironment
from tests.unit.client.conftest import interpreter

ROOT = Path(environment.__file__).parents[2]


def test_markers_are_those_of_packaging() -> None:
    assert environment.markers() == dict(default_environment())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this interpreter does not run on glibc")
def test_glibc_tells_its_version() -> None:
    assert environment.libc() == " ".join(platform.libc_ver())


def test_a_free_threaded_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "abiflags", "t")
    with pytest.raises(Refused, match="free-threaded"):
        environment.target()


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_what_an_interpreter_reports_is_a_target_class(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import json; "
        "from resolver.client.environment import target; print(json.dumps(target()))"
    )
    told = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    facts = json.loads(told.stdout)
    target = TargetEnvironment.from_markers(facts["markers"], facts["libc"])
    assert (target.python, target.machine) == (version, platform.machine())


def test_the_elf_interpreter_is_the_one_that_the_system_names() -> None:
    described = subprocess.run(["readelf", "-l", sys.executable], capture_output=True, text=True)
    if described.returncode:
        pytest.skip("no readelf here, or nothing that it reads")
    assert f"interpreter: {environment.elf_interpreter(sys.executable)}]" in described.stdout


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x01" + bytes(60)]
)
def test_what_is_no_dynamic_program_has_no_elf_interpreter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "program").write_bytes(content)
    assert environment.elf_interpreter(str(tmp_path / "program")) is None


def loader(folder: Path, script: str) -> str:
    """A program that behaves as musl's loader does when it is run with nothing to load."""
    path = folder / "ld-musl-x86_64.so.1"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_musl_tells_its_version_on_standard_error_and_fails(tmp_path: Path) -> None:
    script = "printf 'musl libc (x86_64)\\nVersion 1.2.5\\nDynamic Program Loader\\n' >&2; exit 1"
    assert environment.musl(loader(tmp_path, script)) == "musl 1.2"


@pytest.mark.parametrize("script", ["exit 0", "echo Version unknown >&2", "printf '\\377\\376' >&2"])
def test_a_loader_that_tells_no_version_is_refused(tmp_path: Path, script: str) -> None:
    with pytest.raises(Refused, match="does not tell its version") as caught:
        environment.musl(loader(tmp_path, script))
    assert "--platform" in caught.value.hints[0]


def test_a_loader_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_LOADER_SECONDS", 0.1)
    with pytest.raises(Refused, match="does not tell its version"):
        environment.musl(loader(tmp_path, "exec sleep 60"))


def test_granted_cpus_are_at_least_one_and_at_most_the_affinity() -> None:
    assert 1 <= environment.granted_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("quota", "granted"), [(0.15, 1), (1.0, 1), (1.6, 2), (64.0, 3), (None, 3)])
def test_a_quota_is_rounded_up(monkeypatch: pytest.MonkeyPatch, quota: float | None, granted: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(environment, "_quota", lambda: quota)
    assert environment.granted_cpus() == granted
