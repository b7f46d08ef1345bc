"""Credentials planted at every door: they reach the index, and nothing that the service shows or keeps."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.orphans import descendants
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_wheel

USER = "planted-user"
PASSWORD = "planted-pass/w:rd@1"  # what a URL must encode
SIGNATURE = "planted-signature"
TOKEN = "planted-token-0123456789abcdef"
SECRETS = ("planted-", "planted%2D", "cGxhbnRlZC")  # each of them, and the beginning of the credentials in base64

SIGNED = f"X-Amz-Signature={SIGNATURE}&X-Amz-Expires=900&token={TOKEN}"


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with PackageIndex(auth=(USER, PASSWORD)) as started:
        yield started


@pytest.fixture(scope="module")
def service(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that logs all it has to say."""
    environment = {
        "LOCKSTEP_REFUSALS_FOR": "0s",
        "LOCKSTEP_INDEX_TIMEOUT": "1s",
        "LOCKSTEP_LOG_LEVEL": "debug",
        "AWS_SECRET_ACCESS_KEY": TOKEN,
    }
    data = tmp_path_factory.mktemp("secrets") / "data"
    with Service(data, index_url=index.url_with_auth, environment=environment) as started:
        yield started


@pytest.fixture(params=["metadata on the index", "metadata in the wheel"])
def signed(request: pytest.FixtureRequest, index: PackageIndex, name: str) -> str:
    """A project whose files have signed URLs, and one that it requires."""
    on_index = "index" in request.param
    index.add(*make_wheel(name, "1.0", requires=[f"{name}-dep"]), query=SIGNED, metadata=on_index)
    index.add(*make_wheel(f"{name}-dep", "1.0"), query=SIGNED, metadata=on_index)
    return name


def assert_clean(what: str, content: bytes | str) -> None:
    text = content if isinstance(content, str) else content.decode(errors="replace")
    for secret in SECRETS:
        assert secret not in text, f"{what}: …{text[max(0, text.find(secret) - 200) :][:400]}…"


def assert_answer_clean(answer: httpx.Response) -> httpx.Response:
    assert_clean(f"{answer.request.url}, body", answer.content)
    assert_clean(f"{answer.request.url}, headers", str(answer.headers.multi_items()))
    return answer


def test_locks_and_answers_hold_none_and_the_wheels_arrive(service: Service, signed: str, index: PackageIndex) -> None:
    workload = {"namespace": "shop", "name": signed, "revision": "1"}
    answer = assert_answer_clean(service.resolve(signed, workload=workload))
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "resolved"
    assert index.count(f"-1.0-py3-none-any.whl?{SIGNED}") >= 2, "the signature was used"
    lock, bundle = answer.json()["lock"]["digest"], answer.json()["bundle"]["digest"]
    with service.client() as client:
        whole = assert_answer_clean(client.get(f"/v1/locks/{lock}")).json()
        pylock = assert_answer_clean(client.get(f"/v1/locks/{lock}/pylock.toml")).text
        for path in ("requirements.txt", f"diff/{lock}", f"why/{signed}-dep"):
            assert assert_answer_clean(client.get(f"/v1/locks/{lock}/{path}")).status_code == 200
        for path in ("/v1/locks", "/v1/pins", f"/v1/bundles/{bundle}"):
            assert assert_answer_clean(client.get(path)).status_code == 200
    for package in whole["packages"]:
        assert package["index"] == index.url
        (wheel,) = package["wheels"]
        assert wheel["url"] == f"{index.url.removesuffix('/simple')}/files/{wheel['filename']}"
        assert wheel["url"] in pylock


FAILURES = ("500", "garbage", "half", "refuse", "unauthorized", "redirected", "forbidden", "garbled", "no-solution")


def plant(index: PackageIndex, name: str, failure: str) -> str:
    """Make asking for `name` fail in this way; returns the requirements to ask for."""
    if failure == "no-solution":
        publish(index, f"{name}-a", "1.0", requires=[f"{name}-c==1"])
        publish(index, f"{name}-b", "1.0", requires=[f"{name}-c==2"])
        index.add(*make_wheel(f"{name}-c", "1"), query=SIGNED)
        index.add(*make_wheel(f"{name}-c", "2"), query=SIGNED)
        return f"{name}-a\n{name}-b"
    filename, content = make_wheel(name, "1.0")
    index.add(filename, content, query=SIGNED)
    match failure:
        case "unauthorized":
            index.answer(f"/simple/{name}/", 401, b"", {"WWW-Authenticate": f'Basic realm="{TOKEN}"'})
        case "redirected":
            elsewhere = f"http://{USER}:{TOKEN}@127.0.0.1:9/?token={TOKEN}"
            index.answer(f"/simple/{name}/", 302, b"", {"Location": elsewhere})
        case "forbidden":
            index.answer(f"/files/{filename}", 403, f"no {SIGNED}".encode())
        case "garbled":
            index.fault(f"/files/{filename}?{SIGNED}$", "wrong-bytes")
        case _:
            index.fault(f"/simple/{name}/", failure)  # type: ignore[arg-type]  # the others are faults by name
    return name


def test_problems_hold_none(service: Service, index: PackageIndex, name: str) -> None:
    asked = [plant(index, f"{name}-{failure}", failure) for failure in FAILURES]
    with ThreadPoolExecutor(len(asked)) as callers:  # at once: most of it is waiting for the next attempt
        problems = [*callers.map(service.resolve, asked)]
    index.clear_faults()
    for failure, problem in zip(FAILURES, problems, strict=True):
        assert_answer_clean(problem)
        assert problem.status_code == (422 if failure == "no-solution" else 502), (failure, problem.text)
        assert problem.json()["detail"], failure


@pytest.mark.parametrize(
    "line",
    [
        f"--index-url https://{USER}:{TOKEN}@packages.example.com/simple",
        f"--extra-index-url https://{TOKEN}@packages.example.com/simple",
        f"thing @ https://{USER}:{TOKEN}@packages.example.com/thing-1.0-py3-none-any.whl",
        f"thing @ https://packages.example.com/thing-1.0-py3-none-any.whl?{SIGNED}",
        f"git+https://{TOKEN}@packages.example.com/thing.git",
        f"thing --config-settings=token={TOKEN}",
        f"thing==1.0 --global-option 'password={TOKEN}'",
        f"API_TOKEN={TOKEN}",
        f"Authorization: Bearer {TOKEN}",
    ],
)
def test_a_refused_line_is_shown_without_its_token(service: Service, line: str) -> None:
    problem = assert_answer_clean(service.resolve(f"requests\n{line}\n"))
    assert problem.status_code == 422
    assert problem.json()["type"] == "urn:lockstep:problem:invalid-request"
    assert problem.json()["line"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {"indexes": [f"https://{USER}:{TOKEN}@packages.example.com/simple"]},
        {"workload": {"namespace": "shop", "name": f"https://{USER}:{TOKEN}@packages.example.com/"}},
        {"target": {"python": "3.12", "platform": f"https://{USER}:{TOKEN}@packages.example.com/"}},
    ],
)
def test_a_refused_field_is_shown_without_its_token(service: Service, body: dict[str, Any]) -> None:
    problem = assert_answer_clean(service.resolve("requests", **body))
    assert problem.status_code == 422


def test_no_process_shows_any_in_its_arguments(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*make_wheel(name, "1.0"), query=SIGNED)
    index.fault(f"/simple/{name}/", "slow", times=1)
    seen: set[str] = set()
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(service.resolve(name)))
    asking.start()
    while asking.is_alive():
        seen |= set(descendants(service.pid).values())
        seen.add(Path(f"/proc/{service.pid}/cmdline").read_bytes().decode())
        if any("pip compile" in argv for argv in seen):
            index.clear_faults()
        asking.join(0.01)
    assert any("pip compile" in argv for argv in seen)
    assert any("resolver.bundles.worker" in argv for argv in seen)
    for argv in seen:
        assert_clean("argv", argv)
    assert_answer_clean(answers[0])


def test_what_is_kept_and_told_holds_none(service: Service, signed: str, index: PackageIndex) -> None:
    """After this test's own success and failure, and what the tests before it planted."""
    assert service.resolve(signed).status_code == 200
    assert service.resolve(plant(index, f"{signed}-garbage", "garbage")).status_code == 502
    index.clear_faults()
    with service.client() as client:
        for path in ("/metrics", "/openapi.json", "/readyz", f"/v1/locks?package={TOKEN}", f"/{TOKEN}?token={TOKEN}"):
            answer = client.get(path)
            assert_clean(path, answer.content if TOKEN not in path else answer.content.replace(TOKEN.encode(), b""))
    events = service.events()
    assert {"request", "resolve.failed"} <= {event["event"] for event in events}
    assert_clean("the log", "\n".join(line for line in service.log().splitlines() if f"/{TOKEN}" not in line))

    kept = [file for file in service.data.rglob("*") if file.is_file()]
    assert {"lockstep.db", "lockstep.db-wal"} <= {file.name for file in kept}
    cache = service.data / "uv-cache"
    cached = [file for file in kept if file.is_relative_to(cache)]
    for file in kept:
        if file not in cached:
            assert_clean(str(file), file.read_bytes())
    # uv keeps the pages that it was served, whole: signed URLs are among them, but never a password.
    assert cache.stat().st_mode & 0o777 == 0o700
    in_cache = b"".join(file.read_bytes() for file in cached)
    assert SIGNATURE.encode() in in_cache
    for secret in (PASSWORD, "cGxhbnRlZC", "planted-pass"):
        assert secret.encode() not in in_cache


def test_the_log_of_a_start_that_fails_holds_none(tmp_path: Path) -> None:
    config = tmp_path / "lockstep.yaml"
    config.write_text(f"indexes: [{{name: UPPER, url: 'https://{USER}:{TOKEN}@packages.example.com/simple'}}]\n")
    service = Service(tmp_path / "data", flags=["--config", str(config)], environment={**os.environ})
    with pytest.raises(AssertionError, match="the service ended with"):
        service.start()
    assert "index" in service.log()
    assert_clean("the log", service.log())
