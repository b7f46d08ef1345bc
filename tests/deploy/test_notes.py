"""What Helm says after an install: commands that work as they stand."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from resolver.client.arguments import parse
from tests.deploy.tools import CHART, WEBHOOK, run, tool


def notes(folder: Path, *flags: str) -> str:
    """Only an install prints them; so they are a ConfigMap's, in a copy of the chart."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" -}}}}{text}{{{{- end -}}}}\n'
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {text: {{ include "notes" . | toJson }}}\n'
    )
    shown = ("--namespace", "ours", "--show-only", "templates/notes.yaml", "--kube-version", "1.33")
    done = run(tool("helm"), "template", "lockstep", chart, *shown, *flags)
    assert done.returncode == 0, done.stderr
    (document,) = yaml.safe_load_all(done.stdout)
    found: str = document["data"]["text"]
    return found


@pytest.mark.parametrize("auth", [True, False])
def test_the_clients_command_names_the_service_and_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: bool
) -> None:
    off = ("--set", "auth.kubernetes=false,settings.insecure_no_auth=true")
    text = notes(tmp_path, *WEBHOOK, *(() if auth else off))
    (line,) = [line for line in text.splitlines() if " fetch " in line]
    words = shlex.split(line)
    (tmp_path / "requirements.txt").touch()
    monkeypatch.chdir(tmp_path)
    options = parse(words[words.index("fetch") + 1 :], {})
    assert options.server == "http://lockstep.ours.svc:8080"
    assert options.token_file == ("/var/run/secrets/lockstep/token" if auth else None)
    assert ("serviceAccountToken" in text) == auth
