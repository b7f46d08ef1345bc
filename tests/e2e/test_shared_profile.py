"""The chart's shared profile on a real PostgreSQL and S3: two Pods behind one address that ask
who calls, one killed under load."""

import contextlib
import random
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from resolver.client.build import main as build_client
from tests.deploy.tools import pods, rendered
from tests.faults.replicas import metric, publish
from tests.support import containers
from tests.support.cluster import cluster
from tests.support.containers import Play, playable
from tests.support.index import PackageIndex
from tests.support.postgres import PostgresServer
from tests.support.real_index import real_index as real_index
from tests.support.s3 import moto

# What builds the image installs its lock from it.
pytestmark = [pytest.mark.real_index, pytest.mark.usefixtures("real_index")]

_PODS = ("lockstep-shared-a", "lockstep-shared-b")
_FETCHES = 16
_SECONDS = 180


@contextlib.contextmanager
def one_address(ports: list[int]) -> Iterator[str]:
    """A URL behind which each connection goes to one of the ports, as a Service's does. Where nobody listens any more
    the connection is dropped: the caller has to come again, as in the seconds before endpoints are taken out."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", random.choice(ports))) as backend:
                asking = threading.Thread(target=_relay, args=(self.request, backend), daemon=True)
                asking.start()
                _relay(backend, self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="one-address")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


def test_one_of_two_pods_is_killed_under_load(tmp_path: Path) -> None:
    containers.needs_containers()
    image = containers.build("service", "localhost/lockstep-test/service:under-test")
    client = tmp_path / "lockstep.pyz"
    build_client([str(client)])
    with (
        PackageIndex() as index,
        PostgresServer() as postgres,
        moto() as s3,
        postgres.database() as database,
        cluster(tmp_path) as kubernetes,
    ):
        environment = dict(s3.environment)
        storage = {"url": s3.url(), "secret": "lockstep-bucket"}
        storage |= {"endpoint": environment.pop("AWS_ENDPOINT_URL"), "region": environment.pop("AWS_REGION")}
        documents = rendered("shared", *(f"--set=objectStorage.{name}={value}" for name, value in storage.items()))
        (template,) = [pod for name, pod in pods(documents) if name == "service"]
        secrets = {
            "lockstep-bucket": environment,
            "lockstep-database": {"url": postgres.url(database)},
            "lockstep-index": {"url": index.url},
        }
        tokens = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "lockstep-tokens"},
            "data": {"tokens.yaml": "tokens: []"},
        }
        replicas = [playable(template, name, image, kubernetes) for name in _PODS]
        for pod in replicas:  # podman names an emptyDir by its volume alone
            for volume in pod["spec"]["volumes"]:
                volume["name"] += f"-{pod['metadata']['name']}"
            for mount in pod["spec"]["containers"][0]["volumeMounts"]:
                mount["name"] += f"-{pod['metadata']['name']}"
        with Play([tokens, *replicas], tmp_path, secrets) as running:
            urls = {f"{name}-lockstep": running.wait_until_listening(f"{name}-lockstep") for name in _PODS}
            for filename in publish(index, "storm")[:4]:
                index.fault(f"/{filename}$", "slow", times=1)
            ports = [int(urlsplit(url).port or 0) for url in urls.values()]
            with one_address(ports) as address, contextlib.ExitStack() as stack:
                token = tmp_path / "shop.token"
                token.write_text(kubernetes.token("shop"))
                fetching = [_fetch(client, address, tmp_path / f"pod-{number}", token) for number in range(_FETCHES)]
                for process in fetching:
                    stack.callback(process.kill)
                running.kill(_at_work(urls, index))
                assert [process.poll() for process in fetching] == [None] * _FETCHES
                ended = [process.communicate(timeout=_SECONDS) for process in fetching]
    assert [process.returncode for process in fetching] == [0] * _FETCHES, "\n".join(said for _, said in ended)
    links = {(tmp_path / f"pod-{number}" / ".lockstep" / "current").readlink() for number in range(_FETCHES)}
    assert len(links) == 1, "all of them have the one bundle"


def _fetch(client: Path, address: str, target: Path, token: Path) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-I", "-S", str(client), "fetch", "--server", address, "--target", str(target)]
    argv += ["--requirement", "storm", "--namespace", "shop", "--workload", "storm", "--revision", "r1"]
    argv += ["--token-file", str(token)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def _at_work(urls: dict[str, str], index: PackageIndex) -> str:
    """The container that fetches wheels, found once it has begun to."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        for name, url in urls.items():
            text = httpx.get(f"{url}/metrics").text
            if metric(text, 'lockstep_resolve_seconds_count{engine="uv"}') and index.count(".whl") > 2:
                return name
        time.sleep(0.02)
    raise AssertionError(f"no Pod is at work; {index.requests}")
