"""Every packse scenario, asked of the service over HTTP: each is an index of its own, chosen by its name."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver.domain.targets import TargetEnvironment
from tests.scenarios.packse import Scenario, parameters, scenarios
from tests.support.index import PackageIndex
from tests.support.plain_uv import PlainUv
from tests.support.service import Service

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")

# Not satisfiable because the scenario forbids the build that would do it; to the service it is one more that needs it.
FORBIDS_A_BUILD = {"no-wheels-no-build"}


@pytest.fixture(scope="module")
def indexes() -> Iterator[dict[str, PackageIndex]]:
    """An index for each scenario: they share names of packages, not packages."""
    with ExitStack() as stack:
        started = {}
        for scenario in scenarios():
            started[scenario.name] = stack.enter_context(PackageIndex())
            scenario.publish(started[scenario.name])
        yield started


@pytest.fixture(scope="module")
def service(indexes: dict[str, PackageIndex], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("packse")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"indexes": [{"name": name, "url": i.url} for name, i in indexes.items()]}))
    with Service(folder / "data", flags=["--config", str(config)]) as started:
        yield started


@pytest.mark.parametrize("scenario", parameters())
def test_scenario(scenario: Scenario, service: Service, indexes: dict[str, PackageIndex], tmp_path: Path) -> None:
    judge = PlainUv(tmp_path, ["--default-index", indexes[scenario.name].url])
    requirements = "\n".join(scenario.requires)
    if scenario.universal:
        for platform in PLATFORMS:
            expected = judge.compile(requirements, _target(scenario, platform))
            answer = _ask(service, scenario, platform)
            assert (None if _problem(answer) == "no-solution" else _versions(answer)) == expected
        return
    answer = _ask(service, scenario, PLATFORMS[0])
    if scenario.needs_a_build or scenario.name in FORBIDS_A_BUILD:
        assert _problem(answer) == "build-required"
        assert answer["package"] in scenario.packages
    elif not scenario.satisfiable:
        assert _problem(answer) == "no-solution"
        assert "your requirements are unsatisfiable" in " ".join(answer["detail"].split()), "the engine's explanation"
    else:
        found = scenario.expected or judge.compile(requirements, _target(scenario, PLATFORMS[0]))
        assert _versions(answer) == found


def _target(scenario: Scenario, platform: str) -> TargetEnvironment:
    return TargetEnvironment.from_platform(scenario.python, platform)


def _ask(service: Service, scenario: Scenario, platform: str) -> dict[str, Any]:
    target = {"python": scenario.python, "platform": platform}
    answer: dict[str, Any] = service.resolve(list(scenario.requires), target=target, indexes=[scenario.name]).json()
    return answer


def _problem(answer: dict[str, Any]) -> str | None:
    """The kind of problem that the answer is, None for a lock."""
    kind: str | None = answer.get("type")
    return kind and kind.rpartition(":")[2]


def _versions(answer: dict[str, Any]) -> dict[str, str]:
    assert "lock" in answer, answer
    return {package["name"]: package["version"] for package in answer["lock"]["packages"]}
