"""What the service stands on goes away, in each of a network's ways; it answers what it still can, and recovers.

Bounds on time are generous: far above what the way out takes, far below what waiting for the part would.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from storage.content import Digest
from tests.faults.proxy import FaultProxy, Mode
from tests.faults.replicas import metric
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.s3 import moto
from tests.support.service import Service
from tests.support.wheels import make_wheel

T = TypeVar("T")

AT_ONCE = 4.0
SOON = 15.0
BOUNDED = 30.0

_numbers = itertools.count(1)


@dataclass
class Cluster:
    """Two replicas on shared stores, a proxy before each part. To `aging` no lock is ever fresh."""

    folder: Path
    packages: PackageIndex
    index: FaultProxy
    database: FaultProxy
    blobs: FaultProxy
    environment: Mapping[str, str]
    replica: Service = field(init=False)
    aging: Service = field(init=False)

    def service(self, name: str, *flags: str) -> Service:
        """One more replica, to be started."""
        url = f"http://127.0.0.1:{self.index.port}/simple"
        return Service(self.folder / name, index_url=url, flags=flags, environment=self.environment)

    def publish(self, size: int = 1000) -> str:
        """A package that nobody has asked for, of some bytes that do not compress; its name."""
        name = f"outage-{next(_numbers)}"
        content = random.Random(name).randbytes(size)
        self.packages.add(*make_wheel(name, "1.0", files={f"{name.replace('-', '_')}/data.bin": content}))
        return name


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("outages")
    with ExitStack() as stack:
        packages = stack.enter_context(PackageIndex())
        postgres = stack.enter_context(PostgresServer())
        s3 = stack.enter_context(moto())
        name = stack.enter_context(postgres.database())
        index = stack.enter_context(FaultProxy(packages.port))
        database = stack.enter_context(FaultProxy(postgres.port))
        blobs = stack.enter_context(FaultProxy(int(s3.endpoint.rpartition(":")[2])))
        environment = {
            **s3.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{blobs.port}",
            "LOCKSTEP_DATABASE_URL": postgres.url(name, database.port),
            "LOCKSTEP_BLOB_URL": s3.url(),
            "LOCKSTEP_INDEX_TIMEOUT": "5s",
        }
        made = Cluster(folder, packages, index, database, blobs, environment)
        made.replica = stack.enter_context(made.service("replica"))
        made.aging = stack.enter_context(made.service("aging", "--fresh-for", "0s"))
        yield made


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """All of it well: a test that fails is no other's fault."""
    recovered(running.replica, running.aging)
    return running


def workload(name: str, revision: str = "r1") -> dict[str, str]:
    return {"namespace": "shop", "name": name, "revision": revision}


def outcome(answered: httpx.Response) -> str:
    assert answered.status_code == 200, answered.text
    found: str = answered.json()["outcome"]
    return found


def refused(answered: httpx.Response) -> tuple[int, str]:
    """Status and slug of a problem that a client is to retry."""
    problem = answered.json()
    assert problem["retryable"], problem
    return answered.status_code, problem["type"].rpartition(":")[2]


def within(seconds: float, *asks: Callable[[], T]) -> list[T]:
    """What they give, all asked at the same time, each in time."""

    def timed(ask: Callable[[], T]) -> tuple[T, float]:
        started = time.monotonic()
        return ask(), time.monotonic() - started

    with ThreadPoolExecutor(len(asks)) as pool:
        found = list(pool.map(timed, asks))
    assert max(took for _, took in found) < seconds, [took for _, took in found]
    return [answer for answer, _ in found]


def readiness(service: Service) -> tuple[int, dict[str, Any]]:
    with service.client() as client:
        answered = client.get("/readyz")
    return answered.status_code, answered.json()


def get(service: Service, path: str) -> httpx.Response:
    with service.client() as client:
        return client.get(path)


def told(seconds: float, services: Sequence[Service], *degraded: str) -> None:
    """Wait until each of the services says that just this is away; each answer comes at once, whatever it says."""
    expected = (200, {"status": "degraded" if degraded else "ready", "degraded": [*degraded]})
    deadline = time.monotonic() + seconds
    for service in services:
        while within(AT_ONCE, partial(readiness, service)) != [expected]:
            assert time.monotonic() < deadline, (readiness(service), expected)
            time.sleep(0.2)


def recovered(*services: Service) -> None:
    """Wait until nothing is degraded any more, by itself."""
    told(60, services)


def index_up(service: Service) -> float:
    return metric(service.metrics(), 'lockstep_index_up{index="pypi"}')


@contextmanager
def answering_500(packages: PackageIndex) -> Iterator[None]:
    packages.fault("/", "500")
    try:
        yield
    finally:
        packages.clear_faults()


_INDEX_FAULTS: dict[str, Callable[[Cluster], AbstractContextManager[None]]] = {
    "refuse": lambda cluster: cluster.index.fault("refuse"),
    "hang": lambda cluster: cluster.index.fault("hang"),
    "drip": lambda cluster: cluster.index.fault("drip"),
    "5xx": lambda cluster: answering_500(cluster.packages),
}


@pytest.mark.parametrize("fault", _INDEX_FAULTS)
def test_an_index_is_down(cluster: Cluster, fault: str) -> None:
    replica, aging = cluster.replica, cluster.aging
    name = cluster.publish()
    lock = replica.resolve(name, workload=workload(name)).json()["lock"]
    assert outcome(aging.resolve(cluster.publish())) == "resolved", "it had answered a moment before"

    with _INDEX_FAULTS[fault](cluster):
        asked = len(cluster.packages.requests)
        served = within(
            AT_ONCE,
            lambda: replica.resolve(name, workload=workload(name)),
            lambda: aging.resolve(name, workload=workload(name)),
            lambda: replica.resolve(name),
        )
        assert [outcome(answered) for answered in served] == ["pinned", "pinned", "cached"]
        assert [answered.json()["lock"] for answered in served] == [lock] * 3
        assert len(cluster.packages.requests) == asked, "none of them asked the index"
        assert index_up(replica) == 1, "nor found out that it is down"

        stale, unknown = within(SOON, lambda: aging.resolve(name), lambda: replica.resolve(cluster.publish()))
        assert (outcome(stale), stale.json()["lock"]) == ("stale", lock)
        assert refused(unknown) == (502, "index-unavailable")

        stale, unknown, pinned = within(
            AT_ONCE,
            lambda: aging.resolve(name),
            lambda: replica.resolve(cluster.publish()),
            lambda: replica.resolve(name, workload=workload(name)),
        )
        assert (outcome(stale), outcome(pinned)) == ("stale", "pinned")
        assert (refused(unknown), unknown.json()["index"]) == ((502, "index-unavailable"), "pypi")
        told(SOON, [replica, aging], "index pypi")
        assert (index_up(replica), index_up(aging)) == (0, 0)

    recovered(replica, aging)
    assert (index_up(replica), index_up(aging)) == (1, 1)
    assert outcome(replica.resolve(cluster.publish())) == "resolved"
    assert outcome(aging.resolve(name)) == "resolved"


def contents(service: Service, answer: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The bundle's manifest, and the diff_ids of its layers."""
    manifest = get(service, f"/v1/bundles/{answer['bundle']['digest']}").json()
    config = get(service, f"/v1/blobs/{manifest['config']['digest']}").json()
    return manifest, config["rootfs"]["diff_ids"]


def unavailable(*answers: httpx.Response) -> None:
    for answered in answers:
        assert refused(answered) == (503, "storage-unavailable")
        assert int(answered.headers["Retry-After"]) > 0


@pytest.mark.parametrize("fault", ["refuse", "reset", "hang"])
def test_the_database_is_down(cluster: Cluster, fault: Mode) -> None:
    replica = cluster.replica
    name, other = cluster.publish(), cluster.publish()
    answer = replica.resolve(name, workload=workload(name)).json()
    manifest, (diff_id,) = contents(replica, answer)
    _, (unseen,) = contents(replica, replica.resolve(other).json())
    assert get(replica, f"/v1/blobs/{diff_id}").status_code == 200
    named = [answer["bundle"]["digest"], manifest["config"]["digest"], manifest["layers"][0]["digest"], diff_id]

    with cluster.database.fault(fault):
        told(SOON, [replica], "database")
        assert get(replica, "/healthz").status_code == 200
        blobs = within(AT_ONCE, *(partial(get, replica, f"/v1/blobs/{digest}") for digest in named))
        assert [(blob.status_code, Digest.of(blob.content)) for blob in blobs] == [(200, digest) for digest in named]
        unavailable(
            *within(
                BOUNDED,
                lambda: replica.resolve(name, workload=workload(name)),
                lambda: replica.resolve(name, workload=workload("never-seen")),
                lambda: replica.resolve(name),
                lambda: get(replica, f"/v1/blobs/{unseen}"),
                lambda: get(replica, "/v1/locks"),
            )
        )

    recovered(replica)
    again = replica.resolve(name, workload=workload(name))
    assert (outcome(again), again.json()["bundle"]) == ("pinned", answer["bundle"])
    assert get(replica, f"/v1/blobs/{unseen}").status_code == 200


@pytest.mark.parametrize("fault", ["refuse", "reset", "hang"])
def test_the_object_storage_is_down(cluster: Cluster, fault: Mode) -> None:
    replica, aging = cluster.replica, cluster.aging
    name = cluster.publish()
    answer = replica.resolve(name, workload=workload(name)).json()
    manifest, (diff_id,) = contents(replica, answer)
    named = [manifest["layers"][0]["digest"], diff_id]

    with cluster.blobs.fault(fault):
        told(SOON, [replica, aging], "blob store")
        assert get(replica, "/healthz").status_code == 200

        # A Pod whose container is started again may have the bundle, and needs to hear which one it is, no more.
        [seen_whole] = within(AT_ONCE, lambda: replica.resolve(name, workload=workload(name)))
        [never_seen] = within(SOON, lambda: aging.resolve(name, workload=workload(name)))
        for pinned in (seen_whole, never_seen):
            assert (outcome(pinned), pinned.json()["bundle"]) == ("pinned", answer["bundle"])
        unavailable(
            *within(
                BOUNDED,
                *(partial(get, replica, f"/v1/blobs/{digest}") for digest in named),
                lambda: replica.resolve(cluster.publish()),
            )
        )

    recovered(replica, aging)
    for digest in named:
        assert Digest.of(get(replica, f"/v1/blobs/{digest}").content) == digest
    assert outcome(replica.resolve(cluster.publish())) == "resolved"


def test_the_object_storage_cuts_bodies_off(cluster: Cluster) -> None:
    replica = cluster.replica
    manifest, _ = contents(replica, replica.resolve(cluster.publish(size=3_000_000)).json())
    [layer] = manifest["layers"]

    with cluster.blobs.fault("cut", cut_after=2_000_000), replica.client() as client:
        received = b""
        try:
            with client.stream("GET", f"/v1/blobs/{layer['digest']}") as answered:
                assert answered.status_code == 200
                for chunk in answered.iter_bytes():
                    received += chunk
        except httpx.RemoteProtocolError:
            assert len(received) < layer["size"], "cut off, and seen to be"
        else:
            assert Digest.of(received) == layer["digest"], "asked for the rest"

    assert Digest.of(get(replica, f"/v1/blobs/{layer['digest']}").content) == layer["digest"]


def test_offline_asks_no_index(cluster: Cluster) -> None:
    known = cluster.publish()
    lock = cluster.replica.resolve(known, workload=workload(known)).json()["lock"]
    with cluster.service("offline", "--network", "offline", "--fresh-for", "0s") as offline:
        asked = len(cluster.packages.requests)
        for answered in (
            offline.resolve(known, workload=workload(known)),
            offline.resolve(known, workload=workload(known, "r2")),
            offline.resolve(known, workload=workload("another")),
            offline.resolve(known),
        ):
            assert outcome(answered) in ("pinned", "cached")
            assert answered.json()["lock"] == lock
        [unknown] = within(AT_ONCE, lambda: offline.resolve(cluster.publish()))
        assert refused(unknown) == (502, "index-unavailable")
        assert "offline" in unknown.json()["detail"]
        recovered(offline)
        assert len(cluster.packages.requests) == asked


def test_fallback_takes_a_lock_of_any_age_first(cluster: Cluster) -> None:
    known = cluster.publish()
    lock = cluster.replica.resolve(known).json()["lock"]
    cluster.packages.add(*make_wheel(known, "2.0"))
    with cluster.service("fallback", "--network", "fallback", "--fresh-for", "0s") as fallback:
        asked = len(cluster.packages.requests)
        answered = fallback.resolve(known, workload=workload(known))
        assert (outcome(answered), answered.json()["lock"]) == ("cached", lock)
        assert len(cluster.packages.requests) == asked
        assert outcome(fallback.resolve(cluster.publish())) == "resolved"
    newer = cluster.aging.resolve(known)
    assert (outcome(newer), newer.json()["lock"]["packages"][0]["version"]) == ("resolved", "2.0")
