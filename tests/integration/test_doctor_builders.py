"""`lockstep doctor` on builders: rights that are there or not, Jobs that are taken or not, images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.builds.jobs import RIGHTS
from resolver.doctor.builders import check_builders
from resolver.doctor.findings import Finding
from resolver.kubernetes import ApiServer
from resolver.settings import load
from tests.support.jobs_api import NAMESPACE, JobsApi, Refused, jobs_api
from tests.support.postgres import free_port

MUSL = "cp312-musllinux_1_2_x86_64"
SOUND = {
    "builder_namespace": NAMESPACE,
    "builder_url": "http://10.1.2.3:8080",
    "builder_client_image": "registry.example.com/client:1",
    "builders": f"any=registry.example.com/lockstep:1 {MUSL}=registry.example.com/python312:main",
}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsApi]:
    with jobs_api(tmp_path) as api:
        in_cluster(api.server, monkeypatch)
        yield api


def in_cluster(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApiServer, "from_environment", lambda environment: server)


async def found(**changes: Any) -> dict[str, Finding]:
    findings = {each.about: each for each in await check_builders(load({**SOUND, **changes}, None))}
    assert all((finding.state == "well") == (not finding.way_out) for finding in findings.values())
    return findings


async def test_where_there_are_none() -> None:
    assert await check_builders(load({}, None)) == []


async def test_all_is_well(api: JobsApi) -> None:
    findings = await found(builds="native")
    assert {about: each.state for about, each in findings.items()} == dict.fromkeys(
        ["images", "rights", "jobs"], "well"
    )
    assert MUSL in findings["images"].told
    assert api.jobs == {}  # a dry run


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: " ".join(right[:0:-1]))
async def test_a_right_that_is_missing_is_named(api: JobsApi, right: tuple[str, str, str]) -> None:
    api.granted.remove(right)
    rights = (await found())["rights"]
    assert rights.state == "wrong"
    assert f"may not {right[2]} {right[1]} in the namespace {NAMESPACE}" in rights.told


async def test_a_namespace_that_is_not_there(api: JobsApi) -> None:
    api.namespace = "another"
    jobs = (await found())["jobs"]
    assert jobs.state == "wrong"
    assert "not found" in jobs.told


async def test_a_namespace_that_takes_no_jobs(api: JobsApi) -> None:
    def full() -> None:
        raise Refused(403, "exceeded quota: builds, used: count/jobs.batch=0, limited: count/jobs.batch=0")

    api.refuse["jobs", "create"] = full
    assert "exceeded quota" in (await found())["jobs"].told


async def test_an_api_server_that_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_cluster(ApiServer(f"https://127.0.0.1:{free_port()}", tmp_path), monkeypatch)
    cluster = (await found())["cluster"]
    assert cluster.state == "wrong"
    assert "cannot be read" in cluster.told


async def test_outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert (await found())["cluster"].state == "wrong"


async def test_images(api: JobsApi) -> None:
    native_only = (await found(builders=f"{MUSL}=registry.example.com/python312:main"))["images"]
    assert native_only.state == "wrong"
    any_alone = (await found(builders="any=registry.example.com/lockstep:1", builds="native"))["images"]
    assert any_alone.state == "note"
    assert (await found(builders="any=registry.example.com/lockstep:1"))["images"].state == "well"


async def test_settings_that_make_no_sense() -> None:
    assert "needs builder_url too" in (await found(builder_url=None))["settings"].told
