"""One service and one index a module; every test uses package names of its own."""

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_wheel

# Helpers are no test modules by name: without this their asserts would not explain themselves.
pytest.register_assert_rewrite("tests.integration.doctor")

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as started:
        yield started


@pytest.fixture(scope="module")
def service(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    environment = {"LOCKSTEP_REFUSALS_FOR": "0.2s", "LOCKSTEP_INDEX_TIMEOUT": "2s"}
    with Service(folder / "data", index_url=index.url, environment=environment) as started:
        yield started


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A project's name that no other test uses."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.lower()).strip("-")
    return f"{stem.removeprefix('test-')[:40].strip('-')}-{next(_numbers)}"


def publish(index: PackageIndex, name: str, version: str, **options: Any) -> str:
    """Put a wheel on the index, with `make_wheel`'s options; returns its filename."""
    filename, content = make_wheel(name, version, **options)
    index.add(filename, content)
    return filename


def blobs(service: Service) -> set[str]:
    """The files under the service's blob folder, whatever they are."""
    root: Path = service.data / "blobs"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def scratch(service: Service, patience: float = 10.0) -> list[str]:
    """What stands in the folders for work under way, but for the mark that they are in use, and goes on doing so for
    that many seconds: a service that has just started makes itself ready beside its first requests."""
    root = service.data / "scratch-v1"
    deadline = time.monotonic() + patience
    while True:
        left = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".in-use"]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
