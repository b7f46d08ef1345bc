"""Equal wheels, target and toolchain make equal bundles, whoever builds them, where, and how often."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from resolver.bundles.builder import ProcessLayerBuilder
from resolver.client.environment import target
from resolver.domain.targets import PYTHONS
from resolver.engines.interpreters import discover
from tests.scenarios.conftest import INTERPRETER, everything_a_wheel_can_hold
from tests.support.index import PackageIndex
from tests.support.interpreters import interpreter
from tests.support.real_index import MOMENT, each_set, requirements
from tests.support.service import Service

ROUNDS = 2
# A wheel of the real sets with much Python of all kinds; a flaw in byte-code shows in one build of many.
REBUILT = ("sqlalchemy",)
REBUILDS = 2


def _ask(service: Service, requirements: str, **fields: Any) -> dict[str, Any]:
    """Ask for this interpreter, so that the layers have byte-code."""
    answer = service.resolve(requirements, target=target(), **fields).json()
    if answer.get("type", "").endswith(":build-required"):
        pytest.skip(f"on this platform the set needs a build: {answer['detail']}")
    assert "bundle" in answer, answer
    assert "no-bytecode" not in {warning["code"] for warning in answer["warnings"]}
    return dict(answer)


@contextmanager
def _stores(index: PackageIndex, folder: Path) -> Iterator[list[Service]]:
    """Services with empty stores, in folders that are alike in nothing."""
    with ExitStack() as stack:
        started = []
        for number in range(ROUNDS):
            data = folder / ("deeper/" * 5 * number) / f"store-{number}"
            data.parent.mkdir(parents=True, exist_ok=True)
            started.append(stack.enter_context(Service(data, index_url=index.url, flags=INTERPRETER)))
        yield started


def test_small_sets(tmp_path: Path) -> None:
    digests = []
    with PackageIndex() as index:
        names = everything_a_wheel_can_hold(index)
        for turn in range(ROUNDS):
            with _stores(index, tmp_path / f"turn-{turn}") as services:
                digests += [(a["lock"]["digest"], a["bundle"]["digest"]) for a in (_ask(s, names) for s in services)]
    assert len(digests) == 4
    assert len(set(digests)) == 1


@pytest.fixture(scope="module")
def again() -> Iterator[PackageIndex]:
    """An index that serves once more what was fetched from the real one."""
    with PackageIndex() as index:
        yield index


@pytest.fixture(scope="module")
def others(again: PackageIndex, kept: Path) -> Iterator[list[Service]]:
    with _stores(again, kept / "others") as services:
        yield services


@pytest.mark.real_index
@each_set("requests", "web", "data")
def test_real_sets(name: str, real_service: Service, again: PackageIndex, others: list[Service]) -> None:
    first = _ask(real_service, requirements(name), exclude_newer=MOMENT)
    with real_service.client() as client:
        for package in first["lock"]["packages"]:
            again.add(package["wheel"], client.get(f"/v1/blobs/{package['hash']}").content)

    with ThreadPoolExecutor(ROUNDS) as pool:
        repeated = list(pool.map(lambda service: _ask(service, requirements(name)), others))

    for answer in repeated:
        assert answer["outcome"] == "resolved"
        assert answer["lock"]["packages"] == first["lock"]["packages"]
        assert answer["bundle"] == first["bundle"]
    assert len({answer["lock"]["digest"] for answer in repeated}) == 1


@pytest.mark.real_index
@pytest.mark.parametrize("python", PYTHONS)
async def test_layers_rebuilt_many_times(python: str, real_service: Service, scratch: Path) -> None:
    path = interpreter(python)
    if path is None:
        pytest.skip(f"no interpreter of Python {python} on this machine")
    builder = ProcessLayerBuilder(await discover("", {python: path}), workers=2)
    try:
        for filename, digest in await _wheels(real_service):
            wheel = scratch / digest.removeprefix("sha256:")
            wheel.write_bytes(await _blob(real_service, digest))
            layers = await asyncio.gather(*(builder.build(wheel, filename, python, scratch) for _ in range(REBUILDS)))
            assert all(layer.has_bytecode for layer in layers)
            assert len({layer.digest for layer in layers}) == 1, filename
    finally:
        await builder.close()


async def _wheels(service: Service) -> list[tuple[str, str]]:
    """The wheels to rebuild: filename and digest."""
    async with httpx.AsyncClient(base_url=service.url, timeout=300) as client:
        body = {"requirements": [*REBUILT], "target": target(), "exclude_newer": MOMENT, "wait": 300}
        answer = (await client.post("/v1/resolve", json=body)).json()
    wheels = [
        (package["wheel"], package["hash"]) for package in answer["lock"]["packages"] if package["name"] in REBUILT
    ]
    assert len(wheels) == len(REBUILT), answer
    return wheels


async def _blob(service: Service, digest: str) -> bytes:
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        return (await client.get(f"/v1/blobs/{digest}")).content
