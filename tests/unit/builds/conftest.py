"""Builders as Jobs of an API server that a test has a say in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.builds.job_manifest import BuilderPods
from resolver.builds.jobs import JobLauncher
from resolver.domain.builds import ANY
from tests.support.jobs_api import NAMESPACE, JobsApi, Refused, jobs_api

MUSL = "cp312-musllinux_1_2_x86_64"
PODS = BuilderPods(
    namespace=NAMESPACE,
    images={ANY: "registry.example.com/lockstep:1", MUSL: "registry.example.com/python312:main"},
    url="http://10.1.2.3:8080",
    client_image="registry.example.com/client:1",
    cpu="500m",
    memory=2 << 30,
    disk=1 << 30,
    machine="aarch64",
)
TOKEN = "a-token-that-is-good-for-one-task"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[JobsApi]:
    with jobs_api(tmp_path) as api:
        yield api


@pytest.fixture
def launcher(api: JobsApi) -> JobLauncher:
    return JobLauncher(api.server, PODS, patience=1.0)


def down() -> None:
    """Stands in the way of whatever is asked of the API server."""
    raise Refused(503, "etcd is gone")
