"""Being told to stop, being killed, and callers that go away: work is finished or handed back, and nothing is left."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.orphans import Orphans, adopted, descendants
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service

TARGET = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}


@pytest.fixture
def orphans() -> Iterator[Orphans]:
    with adopted() as found:
        yield found


@pytest.fixture
def stoppable(index: PackageIndex, tmp_path: Path) -> Iterator[Service]:
    """A service of this test's own, that may take 20 seconds to finish."""
    with Service(tmp_path / "data", index_url=index.url, environment={"LOCKSTEP_SHUTDOWN_GRACE": "20s"}) as started:
        yield started
    index.clear_faults()


def until(holds: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for what happens in another process."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def publish_slowly(index: PackageIndex, name: str) -> str:
    """A wheel of which the index gives the METADATA drop by drop, the first time; returns its filename."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()  # short: a drop is a byte
    filename = publish(index, name, "1.0", metadata=metadata)
    index.fault(f"/{filename}.metadata", "slow", times=1)
    return filename


def begin(service: Service, name: str) -> str:
    """Ask, do not wait; returns where the operation is."""
    with service.client() as client:
        answer = client.post("/v1/resolve", json={"requirements": name, "target": TARGET, "wait": 0})
    assert answer.status_code == 202, answer.text
    return answer.headers["Location"]


def get(service: Service, path: str) -> httpx.Response:
    with service.client() as client:
        return client.get(path)


def assert_lost(answer: httpx.Response) -> None:
    """It says that the work is gone, and that asking again may pass."""
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    problem = answer.json()
    assert problem["type"] == "urn:lockstep:problem:busy"
    assert problem["retryable"] is True
    assert "gone" in problem["detail"]


def assert_nothing_left(service: Service, orphans: Orphans) -> None:
    orphans.assert_none(within=2)
    assert list((service.data / "scratch-v1").iterdir()) == []
    assert list((service.data / "blobs" / "blobs-v1" / "staging").iterdir()) == []


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(
    stoppable: Service, index: PackageIndex, name: str, orphans: Orphans, told: signal.Signals
) -> None:
    publish(index, name, "1.0")
    assert get(stoppable, "/readyz").json() == {"status": "ready", "degraded": []}
    assert stoppable.resolve(name).status_code == 200
    assert descendants(stoppable.pid), "the workers that wait for the next layer"
    os.kill(stoppable.pid, told)
    assert stoppable.wait() == 0
    assert stoppable.events()[-1]["event"] == "service.stopped"
    assert_nothing_left(stoppable, orphans)


def test_work_under_way_is_finished_and_no_new_work_is_taken(
    stoppable: Service, index: PackageIndex, name: str, orphans: Orphans
) -> None:
    filename = publish_slowly(index, name)
    location = begin(stoppable, name)
    until(lambda: index.count(f"/{filename}.metadata"))

    os.kill(stoppable.pid, signal.SIGTERM)

    until(lambda: get(stoppable, "/readyz").status_code == 503)
    assert get(stoppable, "/readyz").json()["status"] == "stopping"
    assert get(stoppable, "/healthz").status_code == 200
    assert get(stoppable, location).status_code == 202
    with stoppable.client() as client:
        refused = client.post("/v1/resolve", json={"requirements": "", "target": TARGET})
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:lockstep:problem:busy"
    assert refused.json()["retryable"] is True
    assert "shutting down" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert stoppable.wait() == 0
    told = [event["event"] for event in stoppable.events()]
    assert [event for event in told if event.startswith(("operations.", "service."))] == [
        "service.listening",
        "operations.draining",
        "service.stopped",
    ]
    assert_nothing_left(stoppable, orphans)

    stoppable.start()
    finished = get(stoppable, location)
    assert finished.status_code == 200
    assert finished.json()["outcome"] == "resolved"
    asked = len(index.requests)
    again = stoppable.resolve(name).json()
    assert again["outcome"] == "cached"
    assert again["bundle"] == finished.json()["bundle"]
    assert len(index.requests) == asked


def test_work_that_outlasts_the_grace_is_handed_back(
    index: PackageIndex, name: str, tmp_path: Path, orphans: Orphans
) -> None:
    publish(index, name, "1.0")
    index.fault(f"/simple/{name}/", "hang")
    answers: list[httpx.Response] = []
    grace = {"LOCKSTEP_SHUTDOWN_GRACE": "1s"}
    with Service(tmp_path / "data", index_url=index.url, environment=grace) as service:

        def ask() -> None:
            with service.client() as client:
                answers.append(client.post("/v1/resolve", json={"requirements": name, "target": TARGET, "wait": 60}))

        caller = threading.Thread(target=ask)
        caller.start()
        until(lambda: index.count(f"/simple/{name}/"))
        assert any("pip compile" in argv for argv in descendants(service.pid).values())

        assert service.stop() == 0

        caller.join()
        assert answers[0].status_code == 202, "the caller was let go, and told where to ask"
        assert service.events()[-1]["event"] == "service.stopped"
        assert_nothing_left(service, orphans)
        index.clear_faults()
        service.start()
        assert_lost(get(service, answers[0].headers["Location"]))
        assert service.resolve(name).json()["outcome"] == "resolved"


def test_an_operation_whose_process_was_killed_is_lost_once_its_heartbeat_is_old(
    stoppable: Service, index: PackageIndex, name: str, orphans: Orphans
) -> None:
    publish(index, name, "1.0")
    index.fault(f"/simple/{name}/", "hang")
    location = begin(stoppable, name)
    until(lambda: index.count(f"/simple/{name}/"))

    stoppable.kill()

    orphans.assert_none(within=10)
    stoppable.start()
    assert get(stoppable, location).status_code == 202, "another replica may be at work on it, for all that is known"
    with closing(sqlite3.connect(stoppable.data / "lockstep.db")) as database, database:
        database.execute(
            "UPDATE operations SET updated = updated - ?", (timedelta(seconds=61) // timedelta.resolution,)
        )
    assert_lost(get(stoppable, location))
    index.clear_faults()
    assert stoppable.resolve(name).json()["outcome"] == "resolved"


def test_a_caller_that_goes_away_cancels_nothing(service: Service, index: PackageIndex, name: str) -> None:
    publish_slowly(index, name)
    with service.client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/resolve", json={"requirements": name, "target": TARGET, "wait": 60})

    answer = service.resolve(name).json()

    assert answer["outcome"] == "resolved", "the one who asked next joined the work that was under way"
    pages = [path for path in index.requests if path == f"/simple/{name}/"]
    assert len(pages) == 2, "the engine's, and ours for what the lock says of it"
    assert service.resolve(name).json()["outcome"] == "cached"
