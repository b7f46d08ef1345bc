"""checkov has nothing to say that tests/deploy/checkov.yaml does not answer."""

import json
from pathlib import Path

import pytest

from tests.deploy.tools import BUILDERS, ROOT, VALUES, WEBHOOK, run, template, tool

_CONFIGURATION = Path(__file__).with_name("checkov.yaml")


def _failed(*flags: str | Path) -> tuple[list[str], int]:
    done = run(tool("checkov"), "--config-file", _CONFIGURATION, "--output", "json", *flags)
    found = json.loads(done.stdout)
    failed = [
        f"{each['check_id']} {each['check_name']}: {each['resource']}" for each in found["results"]["failed_checks"]
    ]
    return failed, found["summary"]["passed"]


@pytest.mark.parametrize("values", sorted(VALUES))
def test_manifests(values: str, tmp_path: Path) -> None:
    checkov = tool("checkov")
    done = template(*WEBHOOK, *BUILDERS, *(f"--values={path}" for path in VALUES[values]))
    assert checkov.exists() and done.returncode == 0, done.stderr
    (tmp_path / "rendered.yaml").write_text(done.stdout)
    failed, passed = _failed("--framework", "kubernetes", "--file", tmp_path / "rendered.yaml")
    assert failed == []
    assert passed > 100


def test_dockerfile() -> None:
    failed, passed = _failed("--framework", "dockerfile", "--file", ROOT / "Dockerfile")
    assert failed == []
    assert passed > 50
