"""Builders as Jobs: how each way that one ends is told."""

import asyncio
from typing import Any

import pytest

from resolver.builds.jobs import JobLauncher
from tests.support.jobs_api import JobsApi
from tests.unit.builds.conftest import MUSL, TOKEN, down


def waiting(reason: str, message: str, *, of: str = "builder") -> dict[str, Any]:
    kind = "containerStatuses" if of == "builder" else "initContainerStatuses"
    return {"phase": "Pending", kind: [{"name": of, "state": {"waiting": {"reason": reason, "message": message}}}]}


def terminated(code: int, reason: str, message: str = "", *, of: str = "builder") -> dict[str, Any]:
    kind = "containerStatuses" if of == "builder" else "initContainerStatuses"
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"phase": "Failed" if code else "Succeeded", kind: [{"name": of, "state": state}]}


UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient memory.",
        }
    ],
}

ENDS = [
    (terminated(0, "Completed"), ["builder ended with exit code 0"]),
    (terminated(69, "Error", "lockstep: no route to the service"), ["exit code 69", "no route to the service"]),
    (terminated(137, "OOMKilled"), ["more memory than its limit", "OOMKilled"]),
    (terminated(128, "StartError", "exec: python3: not found"), ["128", "StartError", "python3: not found"]),
    (terminated(1, "Error", "no such file", of="client"), ["client ended with exit code 1", "no such file"]),
    (waiting("ErrImagePull", "not found: python312:main"), ["cannot start", "ErrImagePull", "not found"]),
    (waiting("ImagePullBackOff", "Back-off", of="client"), ["client cannot start", "ImagePullBackOff"]),
    (waiting("CreateContainerConfigError", "image will run as root"), ["CreateContainerConfigError", "as root"]),
    ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, ["Evicted", "low on memory"]),
    (UNSCHEDULABLE, ["could not begin for 1 s", "no node takes its Pod", "Insufficient memory"]),
]


@pytest.mark.parametrize(("status", "told"), ENDS, ids=[" ".join(told[:2]) for _, told in ENDS])
async def test_how_its_pod_ends(api: JobsApi, launcher: JobLauncher, status: dict[str, Any], told: list[str]) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.show(**status)
        said = await builder.ended()
        assert api.job["metadata"]["name"] in said
    for words in told:
        assert words in said


async def test_it_is_waited_for_until_it_ends(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.show(phase="Running", containerStatuses=[{"name": "builder", "state": {"running": {}}}])
        ending = asyncio.create_task(builder.ended())
        await asyncio.sleep(1.2)
        assert not ending.done()
        ending.cancel()  # which changes nothing
        await asyncio.gather(ending, return_exceptions=True)
        api.show(**terminated(0, "Completed"))
        assert "exit code 0" in await builder.ended()


async def test_its_time_is_up(api: JobsApi, launcher: JobLauncher) -> None:
    """The Job's controller takes the Pod away."""
    async with launcher.launch(MUSL, TOKEN, 1) as builder:
        api.show(phase="Running")
        said = await builder.ended()
    assert "DeadlineExceeded" in said
    assert "longer than" in said


async def test_no_pod_is_made_for_it(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        said = await builder.ended()
    assert "no Pod was made" in said
    assert "quota" in said


async def test_somebody_deletes_it(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.jobs.clear()
        assert "deleted by somebody else" in await builder.ended()


async def test_while_the_api_server_is_down_it_is_waited_for(api: JobsApi, launcher: JobLauncher) -> None:
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.refuse["jobs", "get"] = down
        api.show(**terminated(0, "Completed"))
        ending = asyncio.create_task(builder.ended())
        await asyncio.sleep(0.8)
        assert not ending.done()
        del api.refuse["jobs", "get"]
        assert "exit code 0" in await ending


async def test_nobody_waits_for_longer_than_its_time(
    api: JobsApi, launcher: JobLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolver.builds.jobs._LATE", 0.0)
    async with launcher.launch(MUSL, TOKEN, 1.0) as builder:
        api.refuse["jobs", "get"] = down
        said = await builder.ended()
    assert "not ended within 1 s" in said
    assert "etcd is gone" in said


async def test_what_a_pod_says_is_fit_to_be_shown(api: JobsApi, launcher: JobLauncher) -> None:
    printed = "\x1b[31m" + "x" * 5000 + " https://me:hunter2@packages.example.com/simple \x00 the end"
    async with launcher.launch(MUSL, TOKEN, 300) as builder:
        api.show(**terminated(1, "Error", printed))
        said = await builder.ended()
    assert "hunter2" not in said
    assert said.isprintable()
    assert "the end" in said
    assert len(said) < 700
