"""What a revision got outlives restarts of everything, on PostgreSQL and S3; a refresh lets the next one move on."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import publish
from tests.integration.test_pins import AMD64, ARM64, ask, version
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.s3 import moto
from tests.support.service import Service


@dataclass
class Cluster:
    """Replicas on shared stores."""

    folder: Path
    postgres: PostgresServer
    environment: dict[str, str]
    index: PackageIndex

    def service(self, name: str) -> Service:
        """One replica, to be started."""
        return Service(self.folder / name, index_url=self.index.url, environment=self.environment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, index: PackageIndex) -> Iterator[Cluster]:
    with PostgresServer() as postgres, moto() as s3, postgres.database() as database:
        environment = {
            **s3.environment,
            "LOCKSTEP_DATABASE_URL": postgres.url(database),
            "LOCKSTEP_BLOB_URL": s3.url(),
        }
        yield Cluster(tmp_path_factory.mktemp("history"), postgres, environment, index)


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> Iterator[list[Service]]:
    """Two replicas; each test leaves them running."""
    with ExitStack() as stack:
        yield [stack.enter_context(cluster.service(name)) for name in ("one", "two")]


def same(answer: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(answer[part] == other[part] for part in ("lock", "bundle", "pin"))


def test_a_revision_has_one_lock_for_ever(cluster: Cluster, services: list[Service], name: str) -> None:
    one, two = services
    publish(cluster.index, name, "1.0")
    old = ask(one, name, "r1")
    assert (old["outcome"], version(old)) == ("resolved", "1.0")
    publish(cluster.index, name, "2.0")

    assert same(ask(two, name, "r1"), old), "scaled out, on another replica"
    assert one.stop() == 0
    one.start()
    two.kill()
    two.start()
    assert same(ask(one, name, "r1"), old), "restarted"
    assert same(ask(two, name, "r1"), old), "killed, and started again"
    for how in (signal.SIGINT, signal.SIGQUIT):
        cluster.postgres.stop(how)
        cluster.postgres.start()
        for service in services:
            assert same(ask(service, name, "r1"), old), "with a database that went away and came back"
    assert version(ask(two, name, "r2")) == "1.0", "no refresh as yet"

    with one.client() as client:
        assert client.delete(f"/v1/pins/shop/{name}").json()["refreshes"] == 1
    cluster.postgres.stop()
    cluster.postgres.start()
    new = ask(two, name, "r3")
    assert (new["outcome"], version(new)) == ("resolved", "2.0")
    assert same(ask(one, name, "r3"), new)

    with cluster.service("three") as three:
        for service in (one, two, three):
            assert same(ask(service, name, "r1"), old), "rolled back"
            assert same(ask(service, name, "r3"), new)


def test_machines_that_ask_different_replicas_have_equal_versions(
    cluster: Cluster, services: list[Service], name: str
) -> None:
    one, two = services
    _publish_for(cluster, name, "1.0", "x86_64", "aarch64")
    amd64 = ask(one, name, "r1", AMD64)
    _publish_for(cluster, name, "2.0", "x86_64", "aarch64")

    arm64 = ask(two, name, "r1", ARM64)

    assert (version(amd64), version(arm64)) == ("1.0", "1.0")
    assert arm64["lock"]["packages"][0]["wheel"].endswith("aarch64.whl")


def test_machines_that_ask_different_replicas_at_once_agree_or_are_told(
    cluster: Cluster, services: list[Service], name: str
) -> None:
    one, two = services
    _publish_for(cluster, name, "1.0", "x86_64", "aarch64")
    _publish_for(cluster, name, "2.0", "x86_64")
    workload = {"namespace": "shop", "name": name, "revision": "r1"}

    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(service.resolve, name, workload=workload, target=target)
            for service, target in ((one, AMD64), (two, ARM64))
        ]
        amd64, arm64 = (each.result() for each in asked)

    if arm64.status_code == 200:
        # It was first.
        assert (version(amd64.json()), version(arm64.json())) == ("1.0", "1.0")
    else:
        assert version(amd64.json()) == "2.0"
        assert arm64.status_code == 422
        assert arm64.json()["type"].endswith(":target-conflict")
        assert arm64.json()["packages"] == [name]


def _publish_for(cluster: Cluster, name: str, each: str, *machines: str) -> None:
    for machine in machines:
        publish(cluster.index, name, each, tag=f"py3-none-manylinux_2_17_{machine}")
