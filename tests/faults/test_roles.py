"""Processes that only answer, processes that only work: one PostgreSQL, one S3 store."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.replicas import metric
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server, moto
from tests.support.service import Service
from tests.support.wheels import make_sdist, make_wheel

TARGET = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as started:
        yield started


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, S3Server]]:
    with PostgresServer() as postgres, moto() as s3:
        yield postgres, s3


@contextlib.contextmanager
def empty(servers: tuple[PostgresServer, S3Server]) -> Iterator[dict[str, str]]:
    """The environment of processes that share an empty database and an empty place in the bucket."""
    postgres, s3 = servers
    with postgres.database() as database:
        yield {
            **s3.environment,
            "LOCKSTEP_DATABASE_URL": postgres.url(database),
            "LOCKSTEP_BLOB_URL": s3.url(),
            "LOCKSTEP_INDEX_TIMEOUT": "2s",
        }


@pytest.fixture(scope="module")
def processes(
    index: PackageIndex, servers: tuple[PostgresServer, S3Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Service]]:
    folder = tmp_path_factory.mktemp("roles")
    with empty(servers) as stores, contextlib.ExitStack() as stack:
        api, worker = (
            stack.enter_context(Service(folder / role, index_url=index.url, environment=stores, flags=["--role", role]))
            for role in ("api", "worker")
        )
        yield api, worker


def test_what_is_not_there_is_made_by_a_worker_and_answered_by_the_api(
    processes: tuple[Service, Service], index: PackageIndex
) -> None:
    api, worker = processes
    index.add(*make_wheel("cold", "1.0", requires=["colder"]))
    index.add(*make_wheel("colder", "1.0"))
    workload = {"namespace": "shop", "name": "checkout", "revision": "r1"}

    first = api.resolve("cold", workload=workload)
    again = api.resolve("cold", workload=workload)

    assert first.status_code == 200, first.text
    assert [package["name"] for package in first.json()["lock"]["packages"]] == ["cold", "colder"]
    assert again.json()["outcome"] == "pinned"
    assert again.json()["bundle"] == first.json()["bundle"]
    assert metric(api.metrics(), 'lockstep_resolve_seconds_count{engine="uv"}') == 0
    assert metric(worker.metrics(), 'lockstep_resolve_seconds_count{engine="uv"}') == 1
    with api.client() as client:
        manifest = client.get(f"/v1/bundles/{first.json()['bundle']['digest']}").json()
        for layer in manifest["layers"]:
            assert client.get(f"/v1/blobs/{layer['digest']}").status_code == 200


def test_a_refusal_reaches_the_caller_whole(processes: tuple[Service, Service], index: PackageIndex) -> None:
    api, _ = processes
    index.add(*make_sdist("source-only", "3.0"))
    refused = api.resolve("source-only")
    assert refused.json()["type"].endswith(":build-required")
    assert (refused.json()["package"], refused.json()["version"]) == ("source-only", "3.0")
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]


def test_a_failure_reaches_the_caller_as_the_problem_that_it_is(
    processes: tuple[Service, Service], index: PackageIndex
) -> None:
    api, _ = processes
    filename, content = make_wheel("torn", "1.0")
    index.add(filename, content)
    index.fault(f"/{filename}$", "wrong-bytes")
    failed = api.resolve("torn")
    assert (failed.status_code, failed.json()["type"].rpartition(":")[2]) == (502, "digest-mismatch")
    index.clear_faults()


def test_a_worker_answers_nobody(processes: tuple[Service, Service]) -> None:
    _, worker = processes
    with worker.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        assert client.post("/v1/resolve", json={"requirements": "x", "target": TARGET}).status_code == 404


def test_with_no_worker_the_caller_can_follow_and_the_next_worker_does_it(
    index: PackageIndex, servers: tuple[PostgresServer, S3Server], tmp_path: Path
) -> None:
    index.add(*make_wheel("patient", "1.0"))
    with (
        empty(servers) as stores,
        Service(tmp_path / "api", index_url=index.url, environment=stores, flags=["--role", "api"]) as api,
    ):
        with api.client() as client:
            started = client.post("/v1/resolve", json={"requirements": "patient", "target": TARGET, "wait": 0.5})
        assert started.status_code == 202
        with Service(tmp_path / "worker", index_url=index.url, environment=stores, flags=["--role", "worker"]):
            answer = api.resolve("patient")
        assert answer.status_code == 200
        with httpx.Client(base_url=api.url) as client:
            assert client.get(started.headers["Location"]).status_code in (200, 202)


def test_roles_need_shared_stores(index: PackageIndex, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="role worker: needs a database and a blob store"):
        Service(tmp_path / "alone", index_url=index.url, flags=["--role", "worker"]).start()
