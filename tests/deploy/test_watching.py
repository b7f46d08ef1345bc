"""Alerts and dashboard: on metrics that the service really gives, with words for whoever is called."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from resolver.api.problems import KINDS
from resolver.api.schemas import ResolveAnswer
from tests.deploy.tools import CHART, ROOT, of_kind, rendered, run, tool
from tests.support.service import Service

_RULES = CHART / "rules" / "alerts.yaml"
_DASHBOARD = CHART / "dashboards" / "lockstep.json"
_METRIC = re.compile(r"\b(lockstep|kube)_[a-z_]+")
# Of kube-state-metrics, which watches the CronJobs' jobs.
_FOREIGN = {"kube_job_failed"}
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the series that a service gives when it is scraped."""
    with Service(tmp_path_factory.mktemp("watching") / "data", flags=["--network", "offline"]) as service:
        types = re.findall(r"^# TYPE (\S+) (\S+)$", service.metrics(), re.MULTILINE)
    return {name + part for name, kind in types for part in _PARTS[kind]}


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(_RULES.read_text())["groups"] for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return panels


def _expressions() -> list[str]:
    return [rule["expr"] for rule in _alerts()] + [target["expr"] for panel in _panels() for target in panel["targets"]]


def test_every_metric_is_exported(exported: set[str]) -> None:
    asked = {match[0] for expression in _expressions() for match in _METRIC.finditer(expression)}
    assert asked - exported == _FOREIGN
    # And what is exported is looked at by somebody, but for the parts of histograms that no quantile needs.
    assert {name for name in exported if not name.endswith(("_sum", "_count", "_created"))} <= asked


def test_every_outcome_is_one() -> None:
    answers = set(get_args(ResolveAnswer.model_fields["outcome"].annotation))
    named = re.findall(r'outcome=~?"([^"]+)"', "\n".join(_expressions()))
    assert named
    assert {each for alternatives in named for each in alternatives.split("|")} <= answers | {k.slug for k in KINDS}


def test_the_alerts_fire_when_they_should() -> None:
    for verb, file in (("check", _RULES), ("test", Path(__file__).with_name("alerts_test.yaml"))):
        done = run(tool("promtool"), verb, "rules", file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_in_the_runbook() -> None:
    runbook = (ROOT / "deploy" / "README.md").read_text()
    for alert in _alerts():
        assert f"### {alert['alert']}\n" in runbook
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"].keys() == {"summary", "description"}


def test_the_chart_carries_both_whole() -> None:
    documents = rendered("everything")
    (rule,) = of_kind(documents, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(_RULES.read_text())
    (board,) = [each for each in of_kind(documents, "ConfigMap") if "lockstep.json" in each["data"]]
    assert json.loads(board["data"]["lockstep.json"]) == json.loads(_DASHBOARD.read_text())
    (monitor,) = of_kind(documents, "ServiceMonitor")
    (service,) = of_kind(documents, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_panels_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in _panels()}) == len(_panels())
