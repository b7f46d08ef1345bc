"""Two replicas that remember their answers, and what an operator does to a workload between two requests."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from storage.metadata.store import SqlMetadataStore
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.s3 import moto
from tests.support.service import Service


class Pair:
    """Two replicas on one database and one bucket, to which no lock is fresh."""

    def __init__(self, url: str, one: Service, two: Service) -> None:
        self.url = url
        self.one = one
        self.two = two

    def both(self, name: str, revision: str | None = None) -> str:
        """The version that both replicas answer with, each asked three times, and the same bytes each time."""
        workload = {"namespace": "shop", "name": name, **({"revision": revision} if revision else {})}
        answers = [replica.resolve(name, workload=workload) for _ in range(3) for replica in (self.one, self.two)]
        assert {answered.status_code for answered in answers} == {200}
        assert len({answered.content for answered in answers[1:]}) == 1
        assert len({answered.headers["X-Request-ID"] for answered in answers}) == len(answers)
        return version(answers[-1])


def version(answered: httpx.Response) -> str:
    [package] = answered.json()["lock"]["packages"]
    return str(package["version"])


@pytest.fixture(scope="module")
def pair(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        s3 = stack.enter_context(moto())
        url = postgres.url(stack.enter_context(postgres.database()))
        environment = {**s3.environment, "LOCKSTEP_DATABASE_URL": url, "LOCKSTEP_BLOB_URL": s3.url()}

        def replica(name: str) -> Service:
            flags = ("--fresh-for", "0s")
            service = Service(folder / name, index_url=index.url, flags=flags, environment=environment)
            return stack.enter_context(service)

        yield Pair(url, replica("one"), replica("two"))


def refresh(replica: Service, name: str) -> None:
    with replica.client() as client:
        assert client.delete(f"/v1/pins/shop/{name}").status_code == 200


def test_a_refresh_on_one_replica_is_seen_by_the_next_request_on_the_other(
    pair: Pair, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    assert pair.both(name) == "1.0"
    for release in ("2.0", "3.0"):
        publish(index, name, release)
        refresh(pair.one, name)
        assert version(pair.two.resolve(name, workload={"namespace": "shop", "name": name})) == release
        assert pair.both(name) == release


def test_a_named_revision_stays_through_refresh_and_rollback(pair: Pair, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    assert pair.both(name, "r1") == "1.0"
    publish(index, name, "2.0")
    assert pair.both(name, "r1") == "1.0"
    refresh(pair.two, name)
    assert [pair.both(name, revision) for revision in ("r1", "r2", "r1")] == ["1.0", "2.0", "1.0"]


def test_a_hold_is_for_new_revisions(pair: Pair, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    assert pair.both(name, "r1") == "1.0"
    publish(index, name, "2.0")
    refresh(pair.one, name)
    assert pair.both(name, "r2") == "2.0"
    lock = pair.one.resolve(name, workload={"namespace": "shop", "name": name, "revision": "r1"}).json()["lock"]
    with pair.two.client() as client:
        held = client.put(f"/v1/pins/shop/{name}/hold", json={"lock": lock["digest"]})
        assert held.status_code == 200
    assert [pair.both(name, revision) for revision in ("r3", "r2", "r1")] == ["1.0", "2.0", "1.0"]


def test_a_workload_that_is_forgotten_is_not_remembered_for_long(pair: Pair, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    assert pair.both(name, "r1") == "1.0"
    publish(index, name, "2.0")

    async def forget() -> None:
        store = await SqlMetadataStore.open(pair.url)
        assert await store.workloads.forget("shop", name, datetime.now(UTC) + timedelta(hours=1))
        await store.close()
        await asyncio.sleep(2.1)  # how long what was looked at stands

    asyncio.run(forget())
    assert pair.both(name, "r1") == "2.0"


def test_answers_from_memory_are_counted_and_logged(pair: Pair, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    pair.both(name, "r1")

    def counted() -> float:
        [line] = [
            line
            for line in pair.one.metrics().splitlines()
            if line.startswith('lockstep_resolve_requests_total{outcome="pinned"}')
        ]
        return float(line.split()[-1])

    before = counted()
    answered = pair.one.resolve(name, workload={"namespace": "shop", "name": name, "revision": "r1"})
    assert counted() == before + 1
    events = [event for event in pair.one.events() if event["event"] == "request"]
    [told] = [event for event in events if event["request_id"] == answered.headers["X-Request-ID"]]
    assert (told["method"], told["path"], told["status"]) == ("POST", "/v1/resolve", 200)
    assert (told["bytes"], told["level"]) == (len(answered.content), "info")
