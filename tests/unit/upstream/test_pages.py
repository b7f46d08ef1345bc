"""Project pages, as real indexes serve them and as they fail to."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from urllib.parse import urldefrag, urljoin

import httpx
import pytest
from packaging.utils import canonicalize_name

from resolver.domain.errors import IndexUnavailable
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import Pace, index_client
from tests.support.index import Fault, PackageIndex
from tests.support.wheels import make_sdist, make_wheel
from tests.unit.upstream.conftest import QUICK, configured

DEMO = canonicalize_name("demo")
JSON = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
HTML = {"Content-Type": "text/html"}


def publish(index: PackageIndex) -> None:
    index.add(*make_wheel("demo", "1.0", requires_python=">=3.9"), upload_time=datetime(2026, 1, 2, tzinfo=UTC))
    index.add(*make_wheel("demo", "2.0"), yanked="broken", metadata=False)
    index.add(*make_sdist("demo", "3.0"), query="sig=abc")


async def test_json_has_all_that_the_peps_promise(index: PackageIndex, pages: SimplePages) -> None:
    publish(index)
    project = await pages.project(DEMO, (configured(index),))
    assert project is not None
    assert (project.name, project.index.name) == ("demo", "first")
    first, second, third = project.files
    assert first.filename == "demo-1.0-py3-none-any.whl"
    assert first.url == f"http://127.0.0.1:{index.port}/files/demo-1.0-py3-none-any.whl"
    assert first.upload_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert first.requires_python == ">=3.9"
    assert first.size == len(make_wheel("demo", "1.0", requires_python=">=3.9")[1])
    assert first.sha256 is not None and first.metadata_hash is not None
    assert (first.yanked, second.yanked) == (None, "broken")
    assert (second.metadata_hash, second.requires_python) == (None, None)
    assert third.url.endswith("/files/demo-3.0.tar.gz?sig=abc")


async def test_html_says_the_same_but_for_sizes_and_times(client: httpx.AsyncClient) -> None:
    with PackageIndex() as modern, PackageIndex(html_only=True) as old:
        publish(modern)
        publish(old)
        pages = SimplePages(client)
        new = await pages.project(DEMO, (configured(modern),))
        html = await pages.project(DEMO, (configured(old),))
    assert new is not None and html is not None
    told = [(file.filename, file.sha256, file.requires_python, file.yanked, file.metadata_hash) for file in new.files]
    assert told == [
        (file.filename, file.sha256, file.requires_python, file.yanked, file.metadata_hash) for file in html.files
    ]
    assert {(file.size, file.upload_time) for file in html.files} == {(None, None)}


async def test_html_tells_upload_times_where_an_index_adds_them(index: PackageIndex, pages: SimplePages) -> None:
    links = [
        '<a href="demo-1.0.tar.gz" data-upload-time="2026-01-02T03:04:05.678900Z">demo-1.0.tar.gz</a>',
        '<a href="demo-1.1.tar.gz" data-upload-time="2026-01-02T03:04:05">demo-1.1.tar.gz</a>',
        "<a>no file</a>",
        '<a href="demo-1.2.tar.gz" data-upload-time="yesterday">demo-1.2.tar.gz</a>',
        '<a href="demo-1.3.tar.gz">demo-1.3.tar.gz</a>',
    ]
    index.answer("/demo/", 200, "<br>".join(links).encode(), HTML)
    project = await pages.project(DEMO, (configured(index),))
    assert project is not None
    assert [file.upload_time for file in project.files] == [
        datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        None,
        None,
    ]


async def test_the_first_index_that_has_the_project_serves_it(index: PackageIndex, pages: SimplePages) -> None:
    with PackageIndex() as second:
        publish(second)
        indexes = (configured(index), configured(second, "second"))
        project = await pages.project(DEMO, indexes)
        assert project is not None and project.index.name == "second"
        assert await pages.project(canonicalize_name("absent"), indexes) is None
        # That the first had no such project is not remembered: it serves what is published there now.
        index.add(*make_wheel("demo", "0.1"))
        project = await pages.project(DEMO, indexes)
        assert project is not None and project.index.name == "first"


@pytest.mark.parametrize("kind", ["500", "garbage", "half", "hang", "slow", "refuse"])
@pytest.mark.parametrize("html_only", [False, True], ids=["json", "html"])
async def test_an_index_that_fails_is_named_and_never_passed_over(
    client: httpx.AsyncClient, kind: Fault, html_only: bool
) -> None:
    if kind == "hang":
        client.timeout = httpx.Timeout(0.2)
    with PackageIndex(html_only=html_only) as private, PackageIndex() as public:
        publish(private)
        publish(public)
        private.fault("/demo/", kind)
        pages = SimplePages(client, retries=QUICK, pace=Pace(grace=0.2, rate=1e6))
        with pytest.raises(IndexUnavailable) as failure:
            await pages.project(DEMO, (configured(private, "private"), configured(public, "public")))
        assert (failure.value.index, failure.value.about) == ("private", "demo")
        assert public.requests == []
        private.clear_faults()
        project = await pages.project(DEMO, (configured(private, "private"),))
        assert project is not None and len(project.files) == 3


@pytest.mark.parametrize("kind", ["500", "half", "refuse"])
async def test_what_passes_is_tried_again(index: PackageIndex, pages: SimplePages, kind: Fault) -> None:
    publish(index)
    index.fault("/demo/", kind, times=2)
    assert await pages.project(DEMO, (configured(index),)) is not None
    assert index.count("/demo/") == 3


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", JSON),
        (b"[]", JSON),
        (b'{"files": []}', JSON),
        (b'{"meta": {"api-version": "2.0"}, "files": []}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "files": [{"filename": "x", "hashes": {}}]}', JSON),
        (b'{"meta": {"api-version": "1.0"}, "files": [{"filename": "x", "url": "http://[/", "hashes": {}}]}', JSON),
        (b"[" * 100_000, JSON),
        (b"ok", {"Content-Type": "text/plain"}),
        (b"ok", {}),
        (b"please log in", HTML),
        (b"\xff<html>", HTML),
        (b"<html><![x[ y", HTML),
        (b'<html><a href="demo-1.0.tar.gz#top">', HTML),
        (b'<html><meta name="pypi:repository-version" content="2.0">', HTML),
        (b"<html>", {"Content-Type": "text/html; charset=none-such"}),
    ],
)
async def test_what_is_no_page_is_not_taken_for_one(
    index: PackageIndex, pages: SimplePages, body: bytes, headers: dict[str, str]
) -> None:
    index.answer("/demo/", 200, body, headers)
    with pytest.raises(IndexUnavailable, match="index first, demo: answered"):
        await pages.project(DEMO, (configured(index),))
    assert len(index.requests) == 1


@pytest.mark.filterwarnings("ignore::mousebender.simple.APIVersionWarning")
async def test_newer_minor_versions_are_read(index: PackageIndex, pages: SimplePages) -> None:
    index.answer(
        "/demo/", 200, b'<html><meta name="pypi:repository-version" content="1.9"><a href="demo-1.0.zip">', HTML
    )
    project = await pages.project(DEMO, (configured(index),))
    assert project is not None and [file.filename for file in project.files] == ["demo-1.0.zip"]


async def test_odd_but_valid_entries(index: PackageIndex, pages: SimplePages) -> None:
    entries = [
        {"filename": "a.whl", "url": "https://packages.example.com/a.whl#sha256=aa", "hashes": {}, "yanked": True},
        {"filename": "b.whl", "url": "b.whl", "hashes": {"md5": "x"}, "dist-info-metadata": True, "yanked": ""},
        {"filename": "c.whl", "url": "/c.whl", "hashes": {}, "core-metadata": False, "dist-info-metadata": True},
        {
            "filename": "d.whl",
            "url": "d.whl",
            "hashes": {},
            "upload-time": "2026-01-01T00:00:00",
            "requires-python": "",
        },
    ]
    index.answer("/demo/", 200, json.dumps({"meta": {"api-version": "1.0"}, "files": entries}).encode(), JSON)
    project = await pages.project(DEMO, (configured(index),))
    assert project is not None
    a, b, c, d = project.files
    assert (a.url, a.sha256, a.yanked) == ("https://packages.example.com/a.whl", None, "")
    assert (b.url, b.metadata_hash, b.yanked) == (f"{index.url}/demo/b.whl", "", None)
    assert (c.url, c.metadata_hash) == (f"http://127.0.0.1:{index.port}/c.whl", None)
    assert (d.upload_time, d.requires_python) == (datetime(2026, 1, 1, tzinfo=UTC), None)


async def test_a_page_over_the_limit_is_not_read_to_its_end(index: PackageIndex, client: httpx.AsyncClient) -> None:
    publish(index)
    with pytest.raises(IndexUnavailable, match="over 100 bytes"):
        await SimplePages(client, body_limit=100).project(DEMO, (configured(index),))


async def test_a_page_is_read_once_by_many_and_kept(index: PackageIndex, pages: SimplePages) -> None:
    publish(index)
    projects = await asyncio.gather(*(pages.project(DEMO, (configured(index),)) for _ in range(50)))
    assert all(project == projects[0] for project in projects)
    await pages.project(DEMO, (configured(index),))
    assert index.count("/demo/") == 1
    await pages.reread(DEMO, configured(index))
    assert index.count("/demo/") == 2


async def test_pages_are_kept_no_longer_and_no_more_than_said(index: PackageIndex, client: httpx.AsyncClient) -> None:
    publish(index)
    index.add(*make_wheel("other", "1.0"))
    for pages in (SimplePages(client, fresh_for=0), SimplePages(client, most_files=3)):
        index.requests.clear()
        for name in ("demo", "other", "demo"):
            await pages.project(canonicalize_name(name), (configured(index),))
        assert index.count("/demo/") == 2


async def test_credentials_reach_their_index_and_nothing_else(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with PackageIndex(auth=("user", "p@ss")) as index, PackageIndex() as elsewhere:
        pages = SimplePages(client, retries=QUICK)
        private = configured(index)
        publish(index)
        publish(elsewhere)
        assert await pages.project(DEMO, (private,)) is not None
        with pytest.raises(IndexUnavailable, match="answered 401"):
            await pages.project(DEMO, (configured(index, "no-credentials", auth=False),))
        index.answer("/demo/", 302, headers={"Location": f"{elsewhere.url}/demo/"})
        assert await pages.reread(DEMO, private) is not None
        assert elsewhere.authorizations == [None]
        index.clear_faults()
        index.fault("/demo/", "500")
        with pytest.raises(IndexUnavailable) as failure:
            await pages.reread(DEMO, private)
    for text in (str(failure.value), repr(private), caplog.text):
        assert "p%40ss" not in text and "p@ss" not in text


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/demo/", "/simple/demo/", "http://[/"])
async def test_redirects_lead_to_http_alone_and_come_to_an_end(
    index: PackageIndex, pages: SimplePages, location: str
) -> None:
    index.answer("/demo/", 302, headers={"Location": location})
    with pytest.raises(IndexUnavailable):
        await pages.project(DEMO, (configured(index),))
    assert len(index.requests) <= 6


async def test_no_session_outlives_a_request(index: PackageIndex) -> None:
    publish(index)
    index.answer("/demo/", 302, headers={"Location": "/simple/demo/?", "Set-Cookie": "session=1; Path=/"}, times=1)
    async with index_client("0.1") as client:
        assert await SimplePages(client).project(DEMO, (configured(index),)) is not None
        assert len(client.cookies.jar) == 0
        assert client.headers["User-Agent"] == "lockstep/0.1"


async def test_an_index_can_ask_for_a_pause_within_bounds(index: PackageIndex, pages: SimplePages) -> None:
    publish(index)
    for retry_after in ("3600", "Fri, 31 Dec 2099 23:59:59 GMT", "soon"):
        index.answer("/demo/", 429, headers={"Retry-After": retry_after}, times=1)
        assert await pages.reread(DEMO, configured(index)) is not None
    assert index.count("/demo/") == 6


@pytest.mark.parametrize(
    "href",
    [
        "demo-1.0.tar.gz",
        "./demo-1.0.tar.gz",
        "/files/demo-1.0.tar.gz",
        "../../files/demo-1.0.tar.gz#sha256=abc",
        "../files/../demo-1.0+local.tar.gz?sig=a/b",
        "//other.example.com/demo-1.0.tar.gz",
        "https://other.example.com:8443/a/demo-1.0.tar.gz?sig=abc",
        "https://other.example.com/a/demo-1.0.tar.gz#x/y",
        "files/de%20mo-1.0.tar.gz",
    ],
)
async def test_a_file_is_where_its_link_leads_to(index: PackageIndex, pages: SimplePages, href: str) -> None:
    file = {"filename": "demo-1.0.tar.gz", "url": href, "hashes": {}}
    index.answer("/demo/", 200, json.dumps({"meta": {"api-version": "1.0"}, "files": [file]}).encode(), JSON)
    project = await pages.project(DEMO, (configured(index),))
    assert project is not None
    assert [file.url for file in project.files] == [urldefrag(urljoin(f"{index.url}/demo/", href)).url]
