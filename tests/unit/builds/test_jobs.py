"""Builders as Jobs: what the cluster is asked for, why it may not be had, and that nothing stays."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from resolver.builds.job_manifest import COMPONENT
from resolver.builds.jobs import RIGHTS, JobLauncher
from resolver.domain.builds import ANY
from resolver.domain.errors import BuilderUnavailable
from resolver.kubernetes import ApiFault, ApiServer
from tests.support.functions import assert_restricted
from tests.support.jobs_api import ACCOUNT, KUBERNETES, NAMESPACE, JobsApi, Refused
from tests.support.postgres import free_port
from tests.unit.builds.conftest import MUSL, PODS, TOKEN, down

# --- What is asked for ------------------------------------------------------------------------------------------------


async def test_a_builder_is_a_job_of_one_restricted_pod(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300.2):
        job = api.job
        spec = job["spec"]
        pod = spec["template"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 301)
    assert spec["ttlSecondsAfterFinished"] > 0
    assert_restricted(pod)
    assert COMPONENT.items() <= pod["metadata"]["labels"].items()
    assert (pod["spec"]["restartPolicy"], pod["spec"]["automountServiceAccountToken"]) == ("Never", False)
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["nodeSelector"]["kubernetes.io/arch"] == "amd64"
    ((client,), (builder,)) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert (client["image"], builder["image"]) == (PODS.client_image, PODS.images[MUSL])
    words = builder["command"][builder["command"].index("builder") :]
    assert words == ["builder", "--once", "--server", PODS.url, "--token-file", "/lockstep/token/token"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["build"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1536Mi"}
    assert all("sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}) for volume in volumes.values())
    # What it may use it has reserved; what is written in memory is within.
    resources = builder["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"] == {"cpu": "500m", "memory": "3648Mi", "ephemeral-storage": "128Mi"}


async def test_its_token_is_in_a_secret_that_goes_with_it(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(ANY, TOKEN, 300):
        job = api.job
        (secret,) = api.secrets.values()
        assert base64.b64decode(secret["data"]["token"]).decode() == TOKEN
        (volume,) = [each for each in job["spec"]["template"]["spec"]["volumes"] if "secret" in each]
        assert volume["secret"]["secretName"] == secret["metadata"]["name"]
        assert volume["secret"]["defaultMode"] == 0o440  # the group's is the Pod's own: fsGroup
        assert TOKEN not in json.dumps(job)
        # On the machine of the service, which its build requirements are locked for.
        assert job["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert (api.jobs, api.secrets, api.deleted) == ({}, {}, [job["metadata"]["name"]])


async def test_what_is_asked_for_is_valid_to_kubernetes(api: JobsApi, launcher: JobLauncher) -> None:
    schemas: Any = pytest.importorskip(
        "kubernetes_validate", reason="no kubernetes-validate here (.ci/run installs it)"
    )
    async with launcher.launch(MUSL, TOKEN, 300):
        asked = [*api.jobs.values(), *api.secrets.values()]
    assert [each["kind"] for each in asked] == ["Job", "Secret"]
    for each in asked:
        schemas.validate(each, KUBERNETES, strict=True)


async def test_no_other_rights_are_needed(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.show(phase="Failed", reason="Evicted")
        await builder.ended()
    assert set(api.used) == set(RIGHTS)


async def test_each_is_another_users(api: JobsApi, launcher: JobLauncher) -> None:
    users = set()
    for _ in range(8):
        async with launcher.launch(ANY, TOKEN, 300):
            users.add(api.job["spec"]["template"]["spec"]["securityContext"]["runAsUser"])
    assert len(users) > 1
    assert min(users) > 60000


async def test_a_token_of_the_service_that_is_renewed_is_read_again(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(ANY, TOKEN, 300):
        (api.server.folder / "token").write_text("the-next-one\n")
    assert not api.jobs


async def test_a_class_without_an_image_is_missing(launcher: JobLauncher, api: JobsApi) -> None:
    assert await launcher.missing(MUSL) is None
    missing = await launcher.missing("cp313-manylinux_2_28_x86_64")
    assert missing == "no builder image for cp313-manylinux_2_28_x86_64: set `builders`"
    with pytest.raises(BuilderUnavailable, match="no builder image"):
        async with launcher.launch("cp313-manylinux_2_28_x86_64", TOKEN, 300):
            pass
    assert not api.used


# --- Where none can be started ----------------------------------------------------------------------------------------


def quota() -> None:
    raise Refused(403, 'secrets "lockstep-build-1" is forbidden: exceeded quota: builds, used: secrets=10')


async def refused(launcher: JobLauncher, *, may_pass: bool = False) -> str:
    with pytest.raises(BuilderUnavailable) as caught:
        async with launcher.launch(MUSL, TOKEN, 300):
            pass
    assert TOKEN not in str(caught.value)
    assert caught.value.may_pass is may_pass
    return str(caught.value)


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
async def test_a_missing_right_is_named(api: JobsApi, launcher: JobLauncher, kind: str) -> None:
    api.granted -= {right for right in RIGHTS if right[1:] == (kind, "create")}
    told = await refused(launcher)
    assert f'{ACCOUNT}" cannot create resource "{kind}"' in told
    assert NAMESPACE in told
    assert not api.jobs  # nothing is left of the half that was made


async def test_a_quota_is_told(api: JobsApi, launcher: JobLauncher) -> None:
    api.refuse["secrets", "create"] = quota
    assert "exceeded quota: builds" in await refused(launcher)
    assert not api.jobs


async def test_a_namespace_that_is_not_there_is_named(api: JobsApi, launcher: JobLauncher) -> None:
    api.namespace = "another"
    told = await refused(launcher)
    assert f"the namespace {NAMESPACE}, where builders run, is not there" in told


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
async def test_an_api_server_that_comes_back_is_asked_again(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", (0.1, 0.1))
    failing = [down, down]
    api.refuse[kind, "create"] = lambda: failing.pop()() if failing else None
    async with launcher.launch(MUSL, TOKEN, 300):
        assert len(api.jobs) == len(api.secrets) == 1
    assert not failing


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
async def test_what_was_made_by_a_question_without_an_answer_is_not_made_twice(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", (0.1, 0.1))
    api.loses.append((kind, "create"))
    async with launcher.launch(MUSL, TOKEN, 300):
        assert len(api.jobs) == len(api.secrets) == 1
    assert (api.jobs, api.secrets, api.loses) == ({}, {}, [])


async def test_an_api_server_that_fails_is_told(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", ())
    api.refuse["jobs", "create"] = down
    told = await refused(launcher, may_pass=True)
    assert "status 503" in told
    assert "etcd is gone" in told


async def test_an_api_server_that_is_out_of_reach_is_told(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", ())
    told = await refused(
        JobLauncher(ApiServer(f"https://127.0.0.1:{free_port()}", api.server.folder), PODS), may_pass=True
    )
    assert "does not answer" in told


async def test_an_account_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", ())
    told = await refused(JobLauncher(ApiServer("https://127.0.0.1:9", tmp_path / "nowhere"), PODS), may_pass=True)
    assert "cannot be read" in told


async def test_every_question_has_a_time_limit(api: JobsApi) -> None:
    api.refuse["jobs", "get"] = lambda: time.sleep(1.0)
    with pytest.raises(ApiFault, match=r"within 0\.2 s"):
        await api.server.call("GET", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/x", seconds=0.2)


# --- Nothing stays ----------------------------------------------------------------------------------------------------


async def test_a_build_that_is_cancelled_leaves_nothing(api: JobsApi, launcher: JobLauncher) -> None:
    began = asyncio.Event()

    async def build() -> None:
        async with launcher.launch(MUSL, TOKEN, 300):
            began.set()
            await asyncio.sleep(60)

    building = asyncio.create_task(build())
    await began.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert (api.jobs, api.secrets) == ({}, {})


async def test_one_that_is_cancelled_while_it_is_being_made_leaves_nothing(api: JobsApi, launcher: JobLauncher) -> None:
    api.refuse["secrets", "create"] = lambda: time.sleep(0.5)

    async def build() -> None:
        async with launcher.launch(MUSL, TOKEN, 300):
            pytest.fail("it was cancelled before")

    building = asyncio.create_task(build())
    while not api.jobs:
        await asyncio.sleep(0.01)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert api.jobs == {}


async def test_what_cannot_be_deleted_at_first_is_deleted_later(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", (0.1, 0.1))
    failing = [down, down]
    api.refuse["jobs", "delete"] = lambda: failing.pop()() if failing else None
    async with launcher.launch(MUSL, TOKEN, 300):
        pass
    assert api.jobs == {}


async def test_what_cannot_be_deleted_at_all_ends_by_itself(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._PAUSES", (0.1, 0.1))
    api.refuse["jobs", "delete"] = down
    async with launcher.launch(MUSL, TOKEN, 300):
        pass
    left = api.job["spec"]  # and the block was left all the same
    assert left["activeDeadlineSeconds"] == 300
    assert left["ttlSecondsAfterFinished"] > 0


async def test_two_at_once_do_not_meet(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300), launcher.launch(MUSL, TOKEN, 300):
        assert len(api.jobs) == len(api.secrets) == 2
    assert len(set(api.deleted)) == 2
