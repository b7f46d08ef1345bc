"""Every packse scenario, asked of the uv engine itself."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from resolver.domain.outcomes import NoSolution
from resolver.domain.requests import Index, Question, RequirementLine
from resolver.domain.targets import TargetEnvironment
from resolver.engines.uv import UvLocker, platform
from tests.scenarios.packse import Scenario, parameters
from tests.support.index import PackageIndex

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")


@pytest.mark.parametrize("scenario", parameters())
async def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    locker = UvLocker(tmp_path / "cache")
    with PackageIndex() as index:
        scenario.publish(index)
        if scenario.universal:
            for name in PLATFORMS:
                target = _target(scenario, name)
                expected = await _plain_uv(locker, scenario, index, target, tmp_path)
                assert _versions(await locker.lock(_question(scenario, index, target))) == expected
        else:
            answer = await locker.lock(_question(scenario, index, _target(scenario, PLATFORMS[0])))
            if scenario.needs_a_build:
                assert scenario.satisfiable
                assert isinstance(answer, NoSolution)
                return
            assert isinstance(answer, Pylock) == scenario.satisfiable
            if scenario.expected is not None:
                assert _versions(answer) == scenario.expected


def _target(scenario: Scenario, name: str) -> TargetEnvironment:
    return TargetEnvironment.from_platform(scenario.python, name)


def _question(scenario: Scenario, index: PackageIndex, target: TargetEnvironment) -> Question:
    lines = tuple(RequirementLine(Requirement(text), line=n) for n, text in enumerate(scenario.requires, 1))
    return Question(lines, (), target, (Index("packse", index.url),))


def _versions(answer: Pylock | NoSolution) -> dict[str, str] | None:
    """None where there is no solution."""
    if isinstance(answer, NoSolution):
        return None
    return {package.name: str(package.version) for package in answer.packages}


async def _plain_uv(
    locker: UvLocker, scenario: Scenario, index: PackageIndex, target: TargetEnvironment, folder: Path
) -> dict[str, str] | None:
    """What uv, run as a person would, answers for one target."""
    requirements = folder / "requirements.in"
    requirements.write_text("\n".join(scenario.requires))
    argv = ["pip", "compile", "--no-config", "--no-python-downloads", "--only-binary", ":all:", "--no-annotate"]
    argv += ["--python", sys.executable, "--python-version", target.python, "--python-platform", platform(target)]
    argv += ["--default-index", index.url, "--cache-dir", str(folder / "plain"), str(requirements)]
    process = await asyncio.create_subprocess_exec(
        locker.executable,
        *argv,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = (stream.decode() for stream in await process.communicate())
    if process.returncode != 0:
        assert "No solution found" in errors
        return None
    pins = re.findall(r"^([\w.\-]+)(?:\[[^\]]*\])?==(\S+)", printed, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}
