"""The tools that judge what is under deploy/, and the chart as Helm renders it."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver.client.arguments import VARIABLES
from resolver.settings import PREFIX, Settings, load

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "chart"
TOOLS = ROOT / ".cache" / "tools"  # where .ci/run puts what no package manager installs
VALUES = {
    "embedded": (),
    "shared": (ROOT / "deploy" / "examples" / "shared.yaml",),
    "everything": (Path(__file__).with_name("everything.yaml"),),
}
WEBHOOK = ("--set", "webhook.enabled=true")
BUILDERS = ("--set", "builders.enabled=true,builders.clientImage=registry.example.com/lockstep/client:1")

each_profile = pytest.mark.parametrize("values", sorted(VALUES))

Document = dict[str, Any]


def tool(name: str) -> Path:
    """The program. Skips the test where there is none."""
    search = os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=search)
    if found is None:
        pytest.skip(f"no {name} here (.ci/run installs it, where it can be had)")
    return Path(found)


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """One run of a tool, to its end."""
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def template(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    """`helm template`, as `make manifests` has it."""
    return run(tool("helm"), "template", "lockstep", CHART, "--namespace", "lockstep", "--kube-version", "1.33", *flags)


@functools.cache
def rendered(values: str, *flags: str) -> tuple[Document, ...]:
    """The documents that the chart makes of one of VALUES."""
    done = template(*(word for path in VALUES[values] for word in ("--values", path)), *flags)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def pods(documents: Sequence[Document]) -> Iterator[tuple[str, Document]]:
    """Every Pod's template among them (metadata and spec), by what makes it."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Deployment":
            yield "service", spec["template"]
        if document["kind"] == "CronJob":
            yield document["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]


def of_kind(documents: Sequence[Document], kind: str) -> list[Document]:
    """Those of a kind."""
    return [document for document in documents if document["kind"] == kind]


def environment_of(container: Document, documents: tuple[Document, ...]) -> dict[str, str]:
    """The container's variables; a Secret's value is what such a Secret holds."""
    secrets = {
        "LOCKSTEP_DATABASE_URL": "postgresql://lockstep:secret@db.example.com/lockstep",
        "LOCKSTEP_INDEX_URL": "https://user:secret@packages.example.com/simple",
        "LOCKSTEP_PARALLEL_BUILDS": "4",  # the container's own CPU limit
        "POD_IP": "10.1.2.3",
    }
    found = {each["name"]: each["value"] if "value" in each else secrets[each["name"]] for each in container["env"]}
    # As a kubelet does with a reference to another variable.
    return {name: value.replace("$(POD_IP)", secrets["POD_IP"]) for name, value in found.items()}


def settings_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, documents: tuple[Document, ...]
) -> dict[str, Settings]:
    """The settings that each command would run with, read as it reads them: unknown names are refused."""
    found = {}
    for name, pod in pods(documents):
        (container,) = pod["spec"]["containers"]
        command = container["args"][0]
        with monkeypatch.context() as patch:
            environment = environment_of(container, documents)
            for variable, value in environment.items():
                patch.setenv(variable, value)
            if command == "warm":
                assert {variable for variable in environment if variable.startswith(PREFIX)} <= VARIABLES
                continue
            config = None
            if "LOCKSTEP_CONFIG" in environment:
                (given,) = [each for each in of_kind(documents, "ConfigMap") if "lockstep.yaml" in each["data"]]
                config = tmp_path / "lockstep.yaml"
                config.write_text(given["data"]["lockstep.yaml"])
            found[name] = load({}, config)
    return found
