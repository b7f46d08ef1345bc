"""The loss of a replica under load changes nothing that a caller sees."""

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.faults.replicas import replicas, storm
from tests.support.builders import builder_service, builders, needs_builders
from tests.support.index import PackageIndex
from tests.support.sandbox import needs_sandbox
from tests.support.sdists import a_sdist
from tests.support.wheels import make_wheel


def test_the_leader_is_killed_midway(tmp_path: Path) -> None:
    with PackageIndex() as index, replicas(tmp_path, index) as services:
        outcome = asyncio.run(storm(services, index, "storm", callers=40))
    assert len({json.dumps([answer["lock"], answer["bundle"]], sort_keys=True) for answer in outcome.answers}) == 1
    assert outcome.engine_runs <= 1, "at most the heir's"
    again = [filename for filename, times in outcome.fetches.items() if times > 1]
    assert len(again) <= 4, "what the leader was fetching when it died, and no other"
    assert max(outcome.fetches.values()) <= 2


@needs_sandbox
def test_one_replica_builds_for_all(tmp_path: Path) -> None:
    with PackageIndex() as index, replicas(tmp_path, index, count=2) as services:
        index.add(*a_sdist("built"))
        for number in range(10):
            index.add(*make_wheel(f"beside-{number}", "1.0"))
        asked = [["built", f"beside-{number}"] for number in range(10)] + [["built"]] * 10
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(lambda each: services[each[0] % 2].resolve(each[1]).json(), enumerate(asked)))
        builds = [event for service in services for event in service.events() if event.get("event") == "build.done"]
    packages = [package for answer in answers for package in answer["lock"]["packages"]]
    wheels = {package["hash"] for package in packages if package["name"] == "built"}
    assert len(wheels) == len(builds) == 1


@needs_builders
def test_the_one_that_waits_for_a_builder_is_killed(tmp_path: Path) -> None:
    """The task dies with it. Another one takes its place, with a builder of its own."""
    make = partial(builder_service, places=["any"])
    with PackageIndex() as index, replicas(tmp_path, index, count=2, make=make) as (leader, heir):
        index.add(*a_sdist("built", code="import time; time.sleep(3)"))
        with leader.client() as client:
            assert client.post("/v1/resolve", json={"requirements": "built", "wait": 0, "target": TARGET}).is_success
        while not builders(leader):
            time.sleep(0.05)
        leader.kill()
        answer = heir.resolve("built", target=TARGET).json()
        for pid in builders(leader):  # it would give up by itself, a while later
            os.kill(pid, signal.SIGTERM)
        assert [package["name"] for package in answer["lock"]["packages"]] == ["built"]
        assert [event["package"] for event in heir.events() if event.get("event") == "build.done"] == ["built"]
        assert builders(heir) == []


TARGET = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
