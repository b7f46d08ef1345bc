"""Builders as a cluster runs them: the service asks an API server for a Job, podman runs the Job's Pod, as it is.

The API server is a stand-in that lets through what the chart grants and judges what it gets by Kubernetes' own schemas;
it ends Jobs as their controller does. The Pods are real: restricted, with the client from an image, the token in a
file, on the image that the operator mapped.
"""

import asyncio
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resolver.builds.job_manifest import BuilderPods
from resolver.builds.jobs import JobLauncher
from resolver.domain.builds import ANY
from tests.support import containers
from tests.support.jobs_api import NAMESPACE, JobsApi, jobs_api
from tests.support.podman_node import PodmanNode

# In the place of the client, where it is the Pod that is looked at: says what it sees, and asks for its task.
PROBE = b"""
import json, os, sys, urllib.request

flags = dict(zip(sys.argv[3::2], sys.argv[4::2]))
token = open(flags["--token-file"]).read()
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)

PATHS = ["/build", "/tmp", "/", "/lockstep/client", "/lockstep/token", "/usr"]

def written(path):
    try:
        with open(path + "/probe", "w") as file:
            return bool(file.write("x"))
    except OSError:
        return False

seen = {
    "argv": sys.argv[1:],
    "user": os.getuid(),
    "capabilities": status["CapEff"].strip(),
    "bounding": status["CapBnd"].strip(),
    "no_new_privs": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "written": [path for path in PATHS if written(path)],
    "account": os.path.exists("/var/run/secrets/kubernetes.io"),
    "services": [name for name in os.environ if name.endswith("_SERVICE_HOST")],
}
print(json.dumps(seen), file=sys.stderr)
request = urllib.request.Request(flags["--server"] + "/v1/builder/task", headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request, timeout=10) as answer:
    sys.exit(0 if answer.status == 204 else 1)
"""
SLEEPS = b"import time; time.sleep(600)"


class Asked:
    """Where builders ask for their task: there is nothing to do."""

    def __init__(self) -> None:
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.tokens.append((self.path, self.headers["Authorization"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.tokens: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    asked = Asked()
    thread = threading.Thread(target=asked.server.serve_forever, args=(0.05,))
    thread.start()
    yield asked
    asked.server.shutdown()
    asked.server.server_close()
    thread.join()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PodmanNode]:
    containers.needs_containers()
    node = PodmanNode(tmp_path)
    yield node
    node.close()


@pytest.fixture
def api(tmp_path: Path, node: PodmanNode) -> Iterator[JobsApi]:
    with jobs_api(tmp_path, node) as api:
        yield api


@contextmanager
def client(program: bytes) -> Iterator[str]:
    """An image with this program as the client."""
    tag = f"localhost/lockstep-test/client-of-builders:{os.getpid()}-{secrets.token_hex(4)}"
    containers.image_of_client(program, tag)
    try:
        yield tag
    finally:
        containers.podman("rmi", "--force", tag)


def pods(asked: Asked, client_image: str, **changes: Any) -> BuilderPods:
    told: dict[str, Any] = {
        "namespace": NAMESPACE,
        "images": {ANY: containers.base_image()},
        "url": asked.url,
        "client_image": client_image,
        "cpu": "1",
        "memory": 256 << 20,
        "disk": 64 << 20,
        "machine": os.uname().machine,
    }
    return BuilderPods(**{**told, **changes})


async def test_its_pod_is_restricted_and_asks_for_its_task(asked: Asked, api: JobsApi, node: PodmanNode) -> None:
    token = secrets.token_urlsafe(32)
    with client(PROBE) as image:
        async with JobLauncher(api.server, pods(asked, image)).launch(ANY, token, 120) as builder:
            job = api.job
            told = await builder.ended()
        assert "exit code 0" in told, (told, node.left(), node.logs)
        assert node.left() == []
    assert asked.tokens[-1] == ("/v1/builder/task", f"Bearer {token}")
    (log,) = node.logs.values()
    seen = json.loads(log.splitlines()[0])
    assert seen["argv"][:4] == ["builder", "--once", "--server", asked.url]
    assert seen["user"] == job["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert (int(seen["capabilities"], 16), int(seen["bounding"], 16)) == (0, 0)
    assert (seen["no_new_privs"], seen["seccomp"]) == ("1", "2")
    assert seen["written"] == ["/build"]
    assert (seen["account"], seen["services"]) == (False, [])
    assert (api.jobs, api.secrets) == ({}, {})


async def test_one_that_takes_too_long_is_ended(asked: Asked, api: JobsApi, node: PodmanNode) -> None:
    with client(SLEEPS) as image:
        async with JobLauncher(api.server, pods(asked, image)).launch(ANY, "token", 6) as builder:
            assert "DeadlineExceeded" in await builder.ended()
        assert node.left() == []


async def test_one_that_is_given_up_is_gone(asked: Asked, api: JobsApi, node: PodmanNode) -> None:
    with client(SLEEPS) as image:
        launcher = JobLauncher(api.server, pods(asked, image))

        async def build() -> None:
            async with launcher.launch(ANY, "token", 120):
                await asyncio.sleep(60)

        building = asyncio.create_task(build())
        await asyncio.sleep(3)
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
        assert node.left() == []
    assert (api.jobs, api.secrets) == ({}, {})


async def test_one_whose_image_is_not_there_says_so(asked: Asked, api: JobsApi, node: PodmanNode) -> None:
    with client(PROBE) as image:
        images = {ANY: "localhost/lockstep-test/not-there:1"}
        launcher = JobLauncher(api.server, pods(asked, image, images=images))
        async with launcher.launch(ANY, "token", 120) as builder:
            told = await builder.ended()
    assert "cannot start" in told
    assert "not-there" in told
