"""Back-pressure on large blobs: clients that come in a storm, that wait as they are told, that take nothing."""

import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from storage.content import Digest
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service

MIB = 1 << 20
SIZE = 24 * MIB
STREAMS = 4
CLIENTS = 100


@dataclass(frozen=True)
class Storm:
    """A service that sends few blobs at once, and one large layer of it."""

    service: Service
    layer: Digest

    @property
    def path(self) -> str:
        return f"/v1/blobs/{self.layer}"


@pytest.fixture(scope="module")
def storm(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    content = random.Random(1).randbytes(SIZE)
    publish(index, "stormy", "1.0", files={"stormy/data.bin": content})
    folder = tmp_path_factory.mktemp("storm")
    environment = {
        "LOCKSTEP_STREAMS": str(STREAMS),
        "LOCKSTEP_STREAM_QUEUE": "24",
        "LOCKSTEP_STREAM_WAIT": "1s",
        "LOCKSTEP_STREAM_MEMORY": str(4 * MIB),
    }
    with Service(folder / "data", index_url=index.url, environment=environment) as service:
        answer = service.resolve("stormy").json()
        with service.client() as client:
            manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
        yield Storm(service, Digest(manifest["layers"][0]["digest"]))


def metric(service: Service, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", service.metrics(), re.MULTILINE)
    assert found, name
    return float(found[1])


def resident(service: Service) -> int:
    """Bytes of memory that the service's process has."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def download(storm: Storm) -> tuple[str, int]:
    """The digest of what came, asked for as often as the service says to come back later; and how often that was."""
    refused = 0
    with storm.service.client(timeout=300) as client:
        while True:
            with client.stream("GET", storm.path) as answered:
                if answered.status_code == 200:
                    hasher = hashlib.sha256()
                    for chunk in answered.iter_bytes():
                        hasher.update(chunk)
                    return f"sha256:{hasher.hexdigest()}", refused
                problem = answered.read()
                assert answered.status_code == 503, problem
                assert answered.headers["Content-Type"] == "application/problem+json"
                assert b"urn:lockstep:problem:busy" in problem
                refused += 1
                pause = int(answered.headers["Retry-After"])
            time.sleep(pause * random.uniform(0.5, 1))


def test_a_storm_of_clients_that_come_back_when_told_is_served_whole(storm: Storm) -> None:
    assert download(storm)[0] == storm.layer
    before = resident(storm.service)
    most, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most.append(resident(storm.service))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            ended = list(pool.map(download, [storm] * CLIENTS))
    finally:
        stop.set()
        watcher.join()
    assert {digest for digest, _ in ended} == {storm.layer}
    # One copy of the blob for each stream would be three times that; for each client, two gigabytes.
    assert max(most) - before < 32 * MIB, (before, max(most))
    assert metric(storm.service, "lockstep_blob_streams_refused_total") == sum(refused for _, refused in ended)
    assert metric(storm.service, "lockstep_blob_streams") == 0
    assert metric(storm.service, "lockstep_blob_streams_waiting") == 0


class Idle:
    """Clients that ask for the blob and take none of it, until they are closed."""

    def __init__(self, storm: Storm, count: int) -> None:
        host, _, port = storm.service.url.removeprefix("http://").partition(":")
        self._sockets = []
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(f"GET {storm.path} HTTP/1.1\r\nHost: lockstep\r\n\r\n".encode())
            self._sockets.append(connection)

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


def wait_for(service: Service, name: str, value: float) -> None:
    deadline = time.monotonic() + 20
    while metric(service, name) != value:
        assert time.monotonic() < deadline, (name, metric(service, name))
        time.sleep(0.05)


def test_one_that_waits_too_long_is_told_when_to_come_back_and_small_answers_do_not_wait(storm: Storm) -> None:
    idle = Idle(storm, STREAMS)
    try:
        wait_for(storm.service, "lockstep_blob_streams", STREAMS)
        with storm.service.client() as client:
            refused = client.get(storm.path)
            problem = refused.json()
            assert (refused.status_code, problem["type"]) == (503, "urn:lockstep:problem:busy")
            assert problem["retryable"]
            assert int(refused.headers["Retry-After"]) >= 1
            assert client.head(storm.path).status_code == 200
            assert client.get(storm.path, headers={"Range": "bytes=0-999"}).status_code == 206
            assert client.get(storm.path, headers={"If-None-Match": f'"{storm.layer}"'}).status_code == 304
            assert client.get("/readyz").json()["status"] == "ready"
    finally:
        idle.close()
    wait_for(storm.service, "lockstep_blob_streams", 0)
    assert download(storm)[0] == storm.layer


def test_one_that_goes_away_while_it_waits_gives_its_place_up_at_once(index: PackageIndex, tmp_path: Path) -> None:
    publish(index, "patient", "1.0", files={"patient/data.bin": random.Random(2).randbytes(SIZE)})
    # Nobody's patience ends within this test: a place that is given up was given up by its client.
    environment = {"LOCKSTEP_STREAMS": "1", "LOCKSTEP_STREAM_WAIT": "10m"}
    with Service(tmp_path / "data", index_url=index.url, environment=environment) as service:
        answer = service.resolve("patient").json()
        with service.client() as client:
            manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
        storm = Storm(service, Digest(manifest["layers"][0]["digest"]))
        with closing(Idle(storm, 1)):
            wait_for(service, "lockstep_blob_streams", 1)
            with closing(Idle(storm, 3)):
                wait_for(service, "lockstep_blob_streams_waiting", 3)
            wait_for(service, "lockstep_blob_streams_waiting", 0)
            assert metric(service, "lockstep_blob_streams") == 1
        wait_for(service, "lockstep_blob_streams", 0)
        assert download(storm)[0] == storm.layer


def test_bytes_are_sent_as_they_are_whatever_encoding_is_accepted(storm: Storm) -> None:
    for accepted in ("gzip, br, zstd", "identity", "*"):
        answered = httpx.get(storm.service.url + storm.path, headers={"Accept-Encoding": accepted}, timeout=60)
        assert "Content-Encoding" not in answered.headers
        assert Digest.of(answered.content) == storm.layer
