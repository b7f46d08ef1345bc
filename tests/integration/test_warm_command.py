"""`lockstep warm`, as a process of its own, of the real service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import publish
from tests.integration.test_warm import GLIBC, doing_nothing, outcomes
from tests.support.index import PackageIndex
from tests.support.service import ROOT, Service


def lockstep(service: Service, file: Path, *arguments: str, code: int) -> "subprocess.CompletedProcess[str]":
    """Run `lockstep warm`."""
    ran = subprocess.run(
        [sys.executable, "-m", "resolver", "warm", str(file), "--server", service.url, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    return ran


def test_the_command_from_cold_to_hot(service: Service, index: PackageIndex, name: str, tmp_path: Path) -> None:
    for project in (name, f"{name}-reports"):
        publish(index, project, "1.0")
    (tmp_path / "reports.txt").write_text(f"{name}-reports  # plots\n")
    file = tmp_path / "warm.yaml"
    file.write_text(
        f"""\
targets:
  - {{python: "3.12", platform: musllinux_1_2_x86_64}}
entries:
  - name: checkout
    requirements: |
      {name}>=1
  - name: reports
    requirements_file: reports.txt
    targets: [{{python: "3.13", platform: manylinux_2_28_aarch64}}]
"""
    )
    first = lockstep(service, file, code=0)
    assert [line.split()[:4] for line in first.stdout.splitlines()[2:4]] == [
        ["checkout", "3.12", "musllinux_1_2_x86_64", "resolved"],
        ["reports", "3.13", "manylinux_2_28_aarch64", "resolved"],
    ]
    assert "Traceback" not in first.stderr
    with doing_nothing(service, index):
        second = json.loads(lockstep(service, file, "--json", code=0).stdout)
    assert {outcome for *_, outcome in outcomes(second)} == {"hot"}


@pytest.mark.parametrize(
    ("failing", "code", "told"), [("absent", 65, "no-such-project-anywhere"), ("broken", 69, "-broken")]
)
def test_the_command_says_what_is_not_hot(
    service: Service, index: PackageIndex, name: str, tmp_path: Path, failing: str, code: int, told: str
) -> None:
    publish(index, name, "1.0")
    publish(index, f"{name}-broken", "1.0")
    index.fault(f"/simple/{name}-broken/", "500")
    requirements = {"absent": "no-such-project-anywhere", "broken": f"{name}-broken"}[failing]
    file = tmp_path / "warm.yaml"
    entries = [{"name": failing, "requirements": requirements}, {"name": "fine", "requirements": name}]
    file.write_text(json.dumps({"targets": [GLIBC], "entries": entries}))
    try:
        ran = lockstep(service, file, code=code)
    finally:
        index.clear_faults()
    rows = {line.split()[0]: line.split()[3] for line in ran.stdout.splitlines()[2:]}
    assert rows == {failing: "failed", "fine": "resolved"}
    assert told in ran.stderr


def test_a_malformed_file_asks_nothing(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "warm.yaml"
    file.write_text("entries:\n  - name: a\n    requirement: x\n")
    asked = len([event for event in service.events() if event.get("path") == "/v1/warm"])
    ran = lockstep(service, file, code=64)
    assert "line 3: entry 'a', requirement: no such field" in ran.stderr
    assert "line 2: entry 'a': has no `targets`" in ran.stderr
    assert len([event for event in service.events() if event.get("path") == "/v1/warm"]) == asked
