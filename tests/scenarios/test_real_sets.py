"""Real sets of requirements from the real index, for three targets: uv itself is the judge."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import PackageWheel, Pylock
from packaging.utils import NormalizedName, canonicalize_name

from resolver.domain.targets import TargetEnvironment
from tests.support.plain_uv import PlainUv
from tests.support.real_index import MOMENT, each_set, requirements
from tests.support.service import Service

pytestmark = pytest.mark.real_index

TARGETS = [
    TargetEnvironment.from_platform("3.12", "musllinux_1_2_x86_64"),
    TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64"),
    TargetEnvironment.from_platform("3.13", "manylinux_2_28_aarch64"),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@each_set()
def test_versions_are_those_of_uv(name: str, target: TargetEnvironment, real_service: Service, judge: PlainUv) -> None:
    expected = judge.compile(requirements(name), target)
    builds = _newest_without_a_wheel(judge, name, target)

    answer = _ask(real_service, name, target)

    if builds or expected is None:
        assert answer.get("status") == 422, answer
        assert answer["type"].endswith(":build-required")
        assert (answer["package"], answer["version"]) in builds.items()
        assert answer["package"] in answer["detail"]
        return
    assert "lock" in answer, answer
    assert {package["name"]: package["version"] for package in answer["lock"]["packages"]} == expected
    assert _selected(_pylock(real_service, answer), target) == answer["lock"]["packages"]


@each_set("requests", "arrow", "sentiments")
def test_an_empty_store_gives_the_same_lock(name: str, real_index: str, real_service: Service, scratch: Path) -> None:
    target = TARGETS[1]
    first = _ask(real_service, name, target)
    with Service(scratch / "data", index_url=real_index) as another:
        second = _ask(another, name, target)
        assert second["outcome"] == "resolved"
        assert second["lock"] == first["lock"]
        with real_service.client() as one, another.client() as two:
            path = f"/v1/locks/{first['lock']['digest']}/pylock.toml"
            assert one.get(path).content == two.get(path).content


def _ask(service: Service, name: str, target: TargetEnvironment) -> dict[str, Any]:
    asked = {"python": target.python, "platform": target.platform}
    answer: dict[str, Any] = service.resolve(requirements(name), target=asked, exclude_newer=MOMENT).json()
    return answer


def _newest_without_a_wheel(judge: PlainUv, name: str, target: TargetEnvironment) -> Mapping[NormalizedName, str]:
    """The packages of a set whose newest version has no wheel for the target, with that version."""
    found: dict[NormalizedName, str] = {}
    for line in requirements(name).splitlines():
        newest = judge.newest(line, target, sdists=True)
        if newest != judge.newest(line, target, sdists=False):
            found |= newest
    return found


def _pylock(service: Service, answer: dict[str, Any]) -> Pylock:
    with service.client() as client:
        content = client.get(f"/v1/locks/{answer['lock']['digest']}/pylock.toml").text
    return Pylock.from_dict(tomllib.loads(content))


def _selected(pylock: Pylock, target: TargetEnvironment) -> list[dict[str, str]]:
    """What `packaging` selects for the target, in the words of an answer."""
    selected = []
    for package, wheel in pylock.select(environment=target.markers, tags=target.tags):
        assert isinstance(wheel, PackageWheel)
        assert package.version is not None
        selected.append(
            {
                "name": canonicalize_name(package.name),
                "version": str(package.version),
                "wheel": wheel.filename,
                "hash": f"sha256:{wheel.hashes['sha256']}",
            }
        )
    return selected
