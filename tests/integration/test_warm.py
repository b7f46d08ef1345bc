"""Warming: the real service, the real uv, a real index."""

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import blobs, publish
from tests.integration.test_resolve import metric
from tests.support.index import PackageIndex
from tests.support.service import Service

GLIBC = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
MUSL = {"python": "3.12", "platform": "musllinux_1_2_x86_64"}
CHECKOUT = {"namespace": "shop", "name": "checkout", "revision": "r1"}


def entry(name: str, *requirements: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "requirements": [*requirements] or [name], "targets": [GLIBC], **fields}


def warm(service: Service, *entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """POST /v1/warm, followed to its end."""
    with service.client() as client:
        reply = client.post("/v1/warm", json={"entries": [*entries], **fields})
        while reply.status_code == 202:
            time.sleep(0.05)
            reply = client.get(reply.headers["Location"])
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def outcomes(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["name"], each["target"]["platform"], each["outcome"]) for each in answer["entries"]]


def slugs(answer: dict[str, Any]) -> list[str | None]:
    return [each["problem"] and each["problem"]["type"].rpartition(":")[2] for each in answer["entries"]]


@contextmanager
def doing_nothing(service: Service, *indexes: PackageIndex) -> Iterator[None]:
    """What is in here asks no index, runs no engine and writes no blob."""

    def done() -> tuple[object, ...]:
        runs = metric(service, 'lockstep_resolve_seconds_count{engine="uv"}')
        return [len(index.requests) for index in indexes], runs, blobs(service)

    before = done()
    yield
    assert done() == before


def test_what_was_warmed_is_there_when_a_pod_asks(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0", requires=[f"{name}-dep"])
    publish(index, f"{name}-dep", "1.0")

    warmed = warm(service, entry("checkout", name, targets=[GLIBC, MUSL]))

    assert warmed["hot"] is True
    assert outcomes(warmed) == [("checkout", target["platform"], "resolved") for target in (GLIBC, MUSL)]
    publish(index, name, "2.0")
    with doing_nothing(service, index):
        for target, told in zip((GLIBC, MUSL), warmed["entries"], strict=True):
            workload = {**CHECKOUT, "name": target["platform"].partition("_")[0]}
            pod = service.resolve(f"{name}\n", target=target, workload=workload).json()
            assert pod["outcome"] == "cached"
            assert (pod["lock"]["digest"], pod["bundle"]["digest"]) == (told["lock"], told["bundle"])


def test_warming_twice_does_nothing_the_second_time(service: Service, index: PackageIndex, name: str) -> None:
    names = [f"{name}-{number}" for number in range(6)]
    for each in names:
        publish(index, each, "1.0")
    entries = [entry(each, targets=[GLIBC, MUSL]) for each in names]
    first = warm(service, *entries)
    publish(index, names[0], "2.0")
    with doing_nothing(service, index):
        second = warm(service, *entries)
    assert {outcome for *_, outcome in outcomes(first)} == {"resolved"}
    assert {outcome for *_, outcome in outcomes(second)} == {"hot"}
    assert second["hot"] is True
    of = [(each["name"], each["target"], each["lock"], each["bundle"]) for each in second["entries"]]
    assert of == [(each["name"], each["target"], each["lock"], each["bundle"]) for each in first["entries"]]


def test_an_entry_that_fails_stops_no_other(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    publish(index, f"{name}-broken", "1.0")
    index.fault(f"/simple/{name}-broken/", "500")
    try:
        answer = warm(
            service,
            entry("absent", f"{name}-absent"),
            entry("editable", "requests", "-e ."),
            entry("broken", f"{name}-broken"),
            entry("elsewhere", name, indexes=["nowhere"]),
            entry("windows", name, targets=[{"python": "3.12", "platform": "win_amd64"}, GLIBC]),
            entry("fine", name, targets=[MUSL]),
        )
    finally:
        index.clear_faults()
    assert answer["hot"] is False
    assert [each["outcome"] for each in answer["entries"]] == [*["failed"] * 5, "resolved", "resolved"]
    invalid = "invalid-request"
    expected = ["no-solution", invalid, "index-unavailable", invalid, "unsupported-target", None, None]
    assert slugs(answer) == expected
    problems = [each["problem"] for each in answer["entries"]]
    assert f"{name}-absent" in problems[0]["detail"]
    assert (problems[1]["field"], problems[1]["line"]) == ("requirements", 2)
    assert [each["lock"] is None for each in answer["entries"]] == [problem is not None for problem in problems]


def test_an_answer_within_the_wait_and_an_operation_beyond_it(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    body = {"entries": [entry(name)]}
    with service.client() as client:
        started = client.post("/v1/warm", json=body)
        assert started.status_code == 202
        assert started.json()["kind"] == "warm"
        while (followed := client.get(started.headers["Location"])).status_code == 202:
            assert followed.json()["progress"]["stage"] in ("waiting", "warming")
            time.sleep(0.05)
        assert followed.json()["hot"] is True
        at_once = client.post("/v1/warm", json={**body, "wait": 100})
    assert (at_once.status_code, outcomes(at_once.json())) == (200, [(name, GLIBC["platform"], "hot")])


@pytest.mark.parametrize(
    "body",
    [
        {"entries": [{"name": "a", "requirements": "x", "targets": []}]},
        {"entries": [{"name": "a", "requirements_file": "/etc/passwd", "targets": [GLIBC]}]},
        {"entries": [{"name": "", "requirements": "x", "targets": [GLIBC]}]},
        {"entries": [{"name": "a", "requirements": "x", "targets": [GLIBC], "namespace": "../x"}]},
        {"entries": [{"name": "a", "requirements": "x", "targets": [GLIBC]}] * 1001},
        {"recent": {"days": 0, "limit": 1}},
        {"recent": {"days": 1, "limit": 1001}},
        {"recent": {"days": 1}},
        {"targets": [GLIBC]},
        {"wait": -1},
    ],
    ids=range(10),
)
def test_what_is_no_list_of_requests_is_refused(service: Service, body: dict[str, Any]) -> None:
    with service.client() as client:
        refused = client.post("/v1/warm", json=body)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith(":invalid-request")
    assert refused.json()["errors"]


def test_openapi_says_so(service: Service) -> None:
    with service.client() as client:
        document = client.get("/openapi.json").json()
    said = document["paths"]["/v1/warm"]["post"]["responses"]
    assert {"200", "202", "413", "422", "503"} <= said.keys()
    assert said["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/WarmAnswer"}
    ended = document["paths"]["/v1/operations/{identifier}"]["get"]["responses"]["200"]
    kinds = [kind["$ref"].rpartition("/")[2] for kind in ended["content"]["application/json"]["schema"]["anyOf"]]
    assert kinds == ["ResolveAnswer", "WarmAnswer"]


def test_a_bundle_that_is_gone_is_built_again(index: PackageIndex, name: str, tmp_path: Path) -> None:
    publish(index, name, "1.0")
    with Service(tmp_path / "data", index_url=index.url) as service:
        first = warm(service, entry(name))
        service.stop()
        shutil.rmtree(service.data / "blobs")
        service.start()
        again = warm(service, entry(name))
        assert outcomes(again) == [(name, GLIBC["platform"], "built")]
        assert again["hot"] is True
        assert again["entries"][0]["bundle"] == first["entries"][0]["bundle"]
        with service.client() as client:
            assert client.get(f"/v1/bundles/{again['entries'][0]['bundle']}").status_code == 200
        assert outcomes(warm(service, entry(name))) == [(name, GLIBC["platform"], "hot")]


def test_a_lock_that_is_not_fresh_is_not_hot(index: PackageIndex, name: str, tmp_path: Path) -> None:
    publish(index, name, "1.0")
    environment = {"LOCKSTEP_FRESH_FOR": "0s", "LOCKSTEP_INDEX_TIMEOUT": "2s"}
    with Service(tmp_path / "data", index_url=index.url, environment=environment) as service:
        old = warm(service, entry(name))
        publish(index, name, "2.0")
        new = warm(service, entry(name))
        assert outcomes(new) == [(name, GLIBC["platform"], "resolved")]
        assert new["entries"][0]["lock"] != old["entries"][0]["lock"]
        index.fault("/", "refuse")
        try:
            stale = warm(service, entry(name))
        finally:
            index.clear_faults()
    assert outcomes(stale) == [(name, GLIBC["platform"], "stale")]
    assert (stale["hot"], slugs(stale)) == (False, ["index-unavailable"])
    assert stale["entries"][0]["lock"] == new["entries"][0]["lock"]


def test_what_was_asked_for_lately(name: str, tmp_path: Path) -> None:
    """Over a restart, from an index with a password that only one namespace may use and one for all."""
    open_, closed, both = f"{name}-open", f"{name}-closed", f"{name}-both"
    with PackageIndex() as public, PackageIndex(auth=("me", "hunter2")) as private:
        for index, project in ((public, open_), (private, closed), (public, both), (private, both)):
            publish(index, project, "1.0")
        config = tmp_path / "lockstep.yaml"
        indexes = [
            {"name": "closed", "url": private.url_with_auth, "namespaces": ["shop"]},
            {"name": "open", "url": public.url},
        ]
        config.write_text(json.dumps({"indexes": indexes}))
        with Service(tmp_path / "data", flags=["--config", str(config)]) as service:
            for requirements, target, workload in (
                (open_, MUSL, None),
                (both, GLIBC, {**CHECKOUT, "namespace": "other"}),
                (both, GLIBC, CHECKOUT),
                (closed, GLIBC, CHECKOUT),
                (closed, GLIBC, {**CHECKOUT, "name": "another", "revision": "r7"}),
                (both, GLIBC, CHECKOUT),
                (closed, GLIBC, CHECKOUT),
            ):
                answer = service.resolve(requirements, target=target, workload=workload)
                assert answer.status_code == 200, answer.text
            assert service.resolve("no-such-project-anywhere").status_code == 422
            service.stop()
            service.start()
            with doing_nothing(service, public, private):
                warmed = warm(service, recent={"days": 7, "limit": 200})
                again = warm(
                    service, entry("mine", open_, targets=[MUSL], indexes=["open"]), recent={"days": 7, "limit": 3}
                )
        names = [f"recent: {closed}", f"recent: {both}", f"recent: {both}", f"recent: {open_}"]
        assert [each["name"] for each in warmed["entries"]] == names
        assert {outcome for *_, outcome in outcomes(warmed)} == {"hot"}
        assert [each["target"] for each in warmed["entries"]] == [GLIBC, GLIBC, GLIBC, MUSL]
        # `both` is another package to those who see the closed index.
        assert len({each["lock"] for each in warmed["entries"]}) == 4
        assert [each["name"] for each in again["entries"]] == ["mine", *names[:3]]
        connection = sqlite3.connect(tmp_path / "data" / "lockstep.db")
        [(times, kept)] = connection.execute("SELECT max(times), group_concat(request) FROM asked")
        connection.close()
        assert times == 3  # warming counts for nothing
        assert "hunter2" not in kept


async def test_warmings_at_once_share_the_work(service: Service, index: PackageIndex, name: str) -> None:
    wheel = publish(index, name, "1.0")
    runs = metric(service, 'lockstep_resolve_seconds_count{engine="uv"}')
    body = {"entries": [entry(name)], "wait": 100}
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        replies = await asyncio.gather(*(client.post("/v1/warm", json=body) for _ in range(8)))
    assert {reply.json()["entries"][0]["bundle"] for reply in replies} != {None}
    assert len({reply.json()["entries"][0]["bundle"] for reply in replies}) == 1
    assert metric(service, 'lockstep_resolve_seconds_count{engine="uv"}') == runs + 1
    assert index.count(f"/{wheel}") - index.count(f"/{wheel}.metadata") == 1
