"""Bad input: each gets its problem, and leaves nothing behind."""

import io
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from resolver.api.problems import KINDS
from tests.integration.conftest import publish, scratch
from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_wheel

_STATUS = {kind.slug: kind.status for kind in KINDS}
_RETRYABLE = {kind.slug: kind.retryable for kind in KINDS}


def problem(answer: Any, slug: str) -> dict[str, Any]:
    """The answer's problem, which is of this kind."""
    found: dict[str, Any] = answer.json()
    assert found.get("type", found) == f"urn:lockstep:problem:{slug}", found
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.status_code == found["status"] == _STATUS[slug]
    assert found["retryable"] is _RETRYABLE[slug]
    assert found["request_id"] == answer.headers["X-Request-ID"]
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(service: Service, name: str) -> Iterator[None]:
    """What fails makes no lock and no pin, and leaves nothing half done in the store."""
    yield
    with service.client() as client:
        assert client.get("/v1/locks", params={"package": name}).json()["items"] == []
        assert client.get("/v1/pins", params={"namespace": "bad"}).json()["items"] == []
    assert scratch(service) == []
    half_done = [path for path in (service.data / "blobs").rglob("*") if path.is_file() and len(path.name) != 64]
    assert half_done == []


WORKLOAD = {"namespace": "bad", "name": "input", "revision": "1"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("requests>>2", ""),
        ("-e .", "editable"),
        ("-r other.txt", ""),
        ("--index-url https://packages.example.com/simple", "index"),
        ("--find-links /tmp", ""),
        ("./local", "path"),
        ("git+https://packages.example.com/x.git", ""),
        ("thing @ https://packages.example.com/thing-1.0-py3-none-any.whl", "URL"),
        ("--pre", ""),
    ],
)
def test_a_line_that_is_none_or_reaches_outside_is_named(service: Service, line: str, reason: str) -> None:
    found = problem(service.resolve(f"# first\nrequests\n{line}\n", workload=WORKLOAD), "invalid-request")
    assert found["line"] == 3
    assert found["field"] == "requirements"
    assert reason.lower() in found["detail"].lower()


def test_an_unknown_package_has_no_solution(service: Service, name: str) -> None:
    found = problem(service.resolve(name, workload=WORKLOAD), "no-solution")
    assert name in found["detail"]


def test_an_impossible_set_is_explained_whole(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, f"{name}-a", "1.0", requires=[f"{name}-c==1"])
    publish(index, f"{name}-b", "1.0", requires=[f"{name}-c==2"])
    publish(index, f"{name}-c", "1")
    publish(index, f"{name}-c", "2")
    found = problem(service.resolve([f"{name}-a", f"{name}-b"], workload=WORKLOAD), "no-solution")
    for part in ("a", "b", "c"):
        assert f"{name}-{part}" in found["detail"]
    assert found["hints"][0] == found["detail"]


def test_a_wheel_whose_bytes_do_not_match(service: Service, index: PackageIndex, name: str) -> None:
    filename = publish(index, name, "1.0")
    index.fault(f"/{filename}$", "wrong-bytes")
    found = problem(service.resolve(name, workload=WORKLOAD), "digest-mismatch")
    assert (found["file"], found["index"]) == (filename, "pypi")
    index.clear_faults()


def _zip(entries: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in entries.items():
            entry = zipfile.ZipInfo(path)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if path in links:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _hostile(name: str, path: str, content: bytes = b"x", *, link: bool = False) -> tuple[str, bytes]:
    """A wheel with one entry more, which is in RECORD too."""
    filename, good = make_wheel(name, "1.0")
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    record = next(path for path in entries if path.endswith("RECORD"))
    entries[record] = f"{path},,\n".encode() + entries[record]
    return filename, _zip({**entries, path: content}, links=(path,) if link else ())


@pytest.mark.parametrize("path", ["../outside.py", "/etc/outside.py", "ok/../../outside.py", "a\\..\\b.py"])
def test_a_wheel_that_reaches_outside(service: Service, index: PackageIndex, name: str, path: str) -> None:
    filename, content = _hostile(name, path)
    index.add(filename, content)
    found = problem(service.resolve(name, workload=WORKLOAD), "invalid-wheel")
    assert found["file"] == filename


def test_a_wheel_with_a_link(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*_hostile(name, "link.py", b"/etc/passwd", link=True))
    problem(service.resolve(name, workload=WORKLOAD), "invalid-wheel")


def test_a_wheel_that_expands_without_end(service: Service, index: PackageIndex, name: str) -> None:
    index.add(*_hostile(name, "bomb.bin", bytes(600 * 1024 * 1024)))
    problem(service.resolve(name, workload=WORKLOAD), "invalid-wheel")


@pytest.mark.parametrize("served", [True, False], ids=["published", "in the wheel"])
def test_a_wheel_whose_metadata_disagrees_with_the_lock(
    service: Service, index: PackageIndex, name: str, served: bool
) -> None:
    filename, content = make_wheel(
        name, "1.0", metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: 6.6\n".encode()
    )
    index.add(filename, content, metadata=served)
    answer = service.resolve(name, workload=WORKLOAD)
    assert answer.status_code == 422
    assert answer.json()["type"].rpartition(":")[2] in ("invalid-wheel", "no-solution")


@pytest.mark.parametrize("kind", ["500", "garbage", "half", "hang", "refuse"])
def test_an_index_that_fails_is_unavailable(service: Service, index: PackageIndex, name: str, kind: str) -> None:
    publish(index, name, "1.0")
    index.fault(f"/simple/{name}/", kind)  # type: ignore[arg-type]  # one of the kinds
    found = problem(service.resolve(name, workload=WORKLOAD), "index-unavailable")
    assert found["index"] == "pypi"
    index.clear_faults()


def test_an_index_that_does_not_have_the_project_is_no_outage(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    index.fault(f"/simple/{name}/", "404")
    problem(service.resolve(name, workload=WORKLOAD), "no-solution")
    index.clear_faults()


@pytest.mark.parametrize("kind", ["500", "404", "half"])
def test_a_wheel_that_cannot_be_had(service: Service, index: PackageIndex, name: str, kind: str) -> None:
    filename = publish(index, name, "1.0")
    index.fault(f"/{filename}", kind)  # type: ignore[arg-type]  # one of the kinds
    found = problem(service.resolve(name, workload=WORKLOAD), "index-unavailable")
    assert filename in found["detail"] or name in found["detail"]
    index.clear_faults()


def test_a_body_over_the_limit(service: Service) -> None:
    found = problem(service.resolve("#" * (1 << 20) + "\nrequests", workload=WORKLOAD), "request-too-large")
    assert found["limit"] == 1 << 20


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/v1/blobs/sha256:xyz", "invalid-request"),
        ("/v1/blobs/md5:" + "0" * 32, "invalid-request"),
        ("/v1/blobs/..%2f..%2fetc%2fpasswd", "not-found"),
        ("/v1/bundles/sha256:" + "0" * 64, "not-found"),
        ("/v1/locks/sha256:" + "0" * 64, "not-found"),
        ("/v1/locks/latest", "invalid-request"),
        ("/v1/operations/none", "not-found"),
        ("/v1/locks?cursor=bogus", "invalid-request"),
        ("/v1/locks?limit=100000", "invalid-request"),
        ("/nowhere", "not-found"),
    ],
)
def test_what_is_not_there_or_is_no_digest(service: Service, path: str, slug: str) -> None:
    with service.client() as client:
        problem(client.get(path), slug)


@pytest.mark.parametrize(
    ("target", "slug"),
    [
        ({"python": "2.7", "platform": "manylinux_2_28_x86_64"}, "unsupported-target"),
        ({"python": "3.12", "platform": "win_amd64"}, "unsupported-target"),
        ({"python": "3.12", "platform": "manylinux_2_5_x86_64"}, "unsupported-target"),
        (
            {"markers": {"sys_platform": "darwin", "python_full_version": "3.12.1"}, "libc": "none"},
            "unsupported-target",
        ),
        ({"python": "3.12"}, "invalid-request"),
        ("linux", "invalid-request"),
    ],
)
def test_a_target_that_is_none(service: Service, target: Any, slug: str) -> None:
    found = problem(service.resolve("requests", target=target, workload=WORKLOAD), slug)
    assert slug != "unsupported-target" or "3.10" in found["supported"]


@pytest.mark.parametrize(
    "body",
    [
        {"indexes": ["elsewhere"]},
        {"indexes": []},
        {"workload": {"namespace": "../..", "name": "x"}},
        {"workload": {"namespace": "a", "name": "b", "revision": "@refresh-0"}},
        {"exclude_newer": "yesterday"},
        {"wait": -1},
        {"speed": "fast"},
    ],
)
def test_a_field_that_is_not_what_it_should_be(service: Service, body: dict[str, Any]) -> None:
    problem(service.resolve("requests", **body), "invalid-request")


def test_a_body_that_is_no_json(service: Service) -> None:
    with service.client() as client:
        problem(
            client.post("/v1/resolve", content=b"{", headers={"Content-Type": "application/json"}), "invalid-request"
        )
        problem(client.delete("/v1/locks"), "method-not-allowed")
