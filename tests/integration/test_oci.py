"""`/v2/`, end by end: the pull half of the OCI distribution-spec, and what it says of workloads and locks."""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from storage.content import Digest
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.registries import program
from tests.support.service import Service

AMD64 = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
ARM64 = {"python": "3.12", "platform": "manylinux_2_28_aarch64"}
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LOCK_ARTIFACT = "application/vnd.dev.lockstep.pylock.v1+toml"
NOWHERE = "sha256:" + "0" * 64
REPOSITORY = "shop/door"
TAG = "cp312-glibc"


@pytest.fixture(scope="module")
def answer(service: Service, index: PackageIndex) -> dict[str, Any]:
    publish(index, "door", "1.0", requires=["door-dep"])
    publish(index, "door-dep", "1.0")
    return ask(service, "door")


@pytest.fixture
def client(service: Service, answer: dict[str, Any]) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


def ask(service: Service, name: str, revision: str = "1", target: dict[str, str] = AMD64) -> dict[str, Any]:
    workload = {"namespace": "shop", "name": name, "revision": revision}
    answered = service.resolve(name, workload=workload, target=target)
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error that has the specification's form."""
    assert answer.headers["Content-Type"] == "application/json"
    [error] = answer.json()["errors"]
    assert error.keys() == {"code", "message", "detail"}
    assert re.fullmatch(r"[A-Z_]+", error["code"])
    assert error["detail"]["request_id"] == answer.headers["X-Request-ID"]
    return answer.status_code, error["code"]


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_end_1_this_is_a_registry(client: httpx.Client, path: str) -> None:
    found = client.get(path)
    assert (found.status_code, found.json()) == (200, {})
    assert found.headers["Docker-Distribution-API-Version"] == "registry/2.0"


@pytest.mark.parametrize("repository", [REPOSITORY, "bundles"])
def test_end_2_blobs(client: httpx.Client, answer: dict[str, Any], repository: str) -> None:
    manifest = client.get(f"/v2/bundles/manifests/{answer['bundle']['digest']}").json()
    for part in (manifest["config"], *manifest["layers"]):
        path = f"/v2/{repository}/blobs/{part['digest']}"
        found = client.get(path)
        assert (found.status_code, Digest.of(found.content), len(found.content)) == (200, part["digest"], part["size"])
        assert found.headers["ETag"] == f'"{part["digest"]}"'
        head = client.head(path)
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(part["size"]))
        for each in (found, head):
            assert each.headers["Docker-Content-Digest"] == part["digest"]
        piece = client.get(path, headers={"Range": "bytes=1-3"})
        assert (piece.status_code, piece.content) == (206, found.content[1:4])
        assert piece.headers["Content-Range"] == f"bytes 1-3/{part['size']}"
        behind = client.get(path, headers={"Range": f"bytes={part['size']}-"})
        assert refused(behind) == (416, "RANGE_NOT_SATISFIABLE")
        assert behind.headers["Content-Range"] == f"bytes */{part['size']}"
        assert client.get(path, headers={"If-None-Match": f'"{part["digest"]}"'}).status_code == 304


def test_end_3_manifests_by_digest_and_by_tag(client: httpx.Client, answer: dict[str, Any]) -> None:
    tagged = client.get(f"/v2/{REPOSITORY}/manifests/{TAG}")
    assert (tagged.status_code, tagged.headers["Content-Type"]) == (200, INDEX)
    digest = tagged.headers["Docker-Content-Digest"]
    assert Digest.of(tagged.content) == digest
    [entry] = tagged.json()["manifests"]
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    assert entry["digest"] == answer["bundle"]["digest"]
    assert entry["annotations"]["dev.lockstep.lock"] == answer["lock"]["digest"]
    for reference, media_type in ((TAG, INDEX), (digest, INDEX), (entry["digest"], MANIFEST)):
        path = f"/v2/{REPOSITORY}/manifests/{reference}"
        found, head = client.get(path), client.head(path)
        assert found.json()["mediaType"] == media_type
        assert head.content == b""
        for each in (found, head):
            assert (each.status_code, each.headers["Content-Type"]) == (200, media_type)
            assert each.headers["Content-Length"] == str(len(found.content))
            assert each.headers["Docker-Content-Digest"] == Digest.of(found.content)
        assert client.get(path, headers={"If-None-Match": found.headers["ETag"]}).status_code == 304
    assert "immutable" in client.get(f"/v2/{REPOSITORY}/manifests/{digest}").headers["Cache-Control"]
    assert tagged.headers["Cache-Control"] == "no-cache"


def test_end_3_serves_no_other_blob_as_a_manifest(client: httpx.Client, answer: dict[str, Any]) -> None:
    manifest = client.get(f"/v2/bundles/manifests/{answer['bundle']['digest']}").json()
    for part in (manifest["config"], manifest["layers"][0]):
        assert refused(client.get(f"/v2/bundles/manifests/{part['digest']}")) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/v2/{REPOSITORY}/manifests/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPOSITORY}/manifests/sha512:{'0' * 128}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPOSITORY}/manifests/cp399-glibc", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPOSITORY}/manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("/v2/bundles/manifests/latest", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/{REPOSITORY}/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        (f"/v2/{REPOSITORY}/blobs/sha512:{'0' * 128}", 404, "BLOB_UNKNOWN"),
        (f"/v2/{REPOSITORY}/blobs/sha256:bad", 400, "DIGEST_INVALID"),
        (f"/v2/{REPOSITORY}/referrers/sha256:bad", 400, "DIGEST_INVALID"),
        (f"/v2/{REPOSITORY}/tags/list?n=-1", 400, "INVALID_REQUEST"),
        ("/v2/shop/nobody/tags/list", 404, "NAME_UNKNOWN"),
        (f"/v2/shop/nobody/manifests/{TAG}", 404, "NAME_UNKNOWN"),
        (f"/v2/shop/nobody/blobs/{NOWHERE}", 404, "NAME_UNKNOWN"),
        (f"/v2/shop/nobody/referrers/{NOWHERE}", 404, "NAME_UNKNOWN"),
        (f"/v2/locks/{'0' * 64}/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/Shop/DOOR/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "NAME_UNKNOWN"),
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str, status: int, code: str) -> None:
    assert refused(client.get(httpx.URL(path))) == (status, code)
    if "tags/list" not in path and "referrers" not in path:
        assert client.head(path).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?mount={NOWHERE}&from=bundles"),
        ("PATCH", "blobs/uploads/session"),
        ("PUT", f"blobs/uploads/session?digest={NOWHERE}"),
        ("DELETE", "blobs/uploads/session"),
        ("PUT", f"manifests/{TAG}"),
        ("DELETE", f"manifests/{TAG}"),
        ("DELETE", f"blobs/{NOWHERE}"),
    ],
)
def test_ends_4_to_7_and_9_to_11_nothing_is_pushed_or_deleted(client: httpx.Client, method: str, path: str) -> None:
    found = client.request(method, f"/v2/{REPOSITORY}/{path}")
    assert (refused(found), found.headers["Allow"]) == ((405, "UNSUPPORTED"), "GET, HEAD")


def test_end_8_tags_page_by_page(service: Service, index: PackageIndex) -> None:
    publish(index, "tagged", "1.0")
    every = []
    for python in ("3.13", "3.11", "3.12"):
        for platform, libc in (("musllinux_1_2_x86_64", "musl"), ("manylinux_2_28_x86_64", "glibc")):
            ask(service, "tagged", target={"python": python, "platform": platform})
            every.append(f"cp{python.replace('.', '')}-{libc}")
    every.sort()
    path = "/v2/shop/tagged/tags/list"
    with service.client() as client:
        assert client.get(path).json() == {"name": "shop/tagged", "tags": every}
        assert "Link" not in client.get(path).headers
        none = client.get(path, params={"n": 0})
        assert (none.json()["tags"], "Link" in none.headers) == ([], False)
        assert client.get(path, params={"last": every[2]}).json()["tags"] == every[3:]
        assert client.get(path, params={"n": 2, "last": every[0]}).json()["tags"] == every[1:3]
        assert client.get(path, params={"n": 100}).json()["tags"] == every
        seen: list[str] = []
        url = f"{path}?n=4"
        while url:
            page = client.get(url)
            seen += page.json()["tags"]
            url = str(page.links.get("next", {}).get("url", ""))
        assert seen == every
        assert client.get("/v2/bundles/tags/list").json() == {"name": "bundles", "tags": []}


def test_end_12_the_lock_is_a_referrer(client: httpx.Client, answer: dict[str, Any]) -> None:
    index = client.get(f"/v2/{REPOSITORY}/manifests/{TAG}").headers["Docker-Content-Digest"]
    lock = client.get(f"/v1/locks/{answer['lock']['digest']}/pylock.toml").content
    for repository, subject in (
        (REPOSITORY, index),
        (REPOSITORY, answer["bundle"]["digest"]),
        ("bundles", answer["bundle"]["digest"]),
    ):
        found = client.get(f"/v2/{repository}/referrers/{subject}")
        assert (found.status_code, found.headers["Content-Type"]) == (200, INDEX)
        assert "OCI-Filters-Applied" not in found.headers
        listed = found.json()
        assert (listed["schemaVersion"], listed["mediaType"]) == (2, INDEX)
        [entry] = listed["manifests"]
        assert entry["artifactType"] == LOCK_ARTIFACT
        manifest = client.get(f"/v2/{repository}/manifests/{entry['digest']}")
        assert (manifest.status_code, len(manifest.content)) == (200, entry["size"])
        artifact = manifest.json()
        assert artifact["subject"]["digest"] == subject
        assert (artifact["artifactType"], artifact["annotations"]) == (LOCK_ARTIFACT, entry["annotations"])
        [layer] = artifact["layers"]
        assert client.get(f"/v2/{repository}/blobs/{layer['digest']}").content == lock
        assert client.get(f"/v2/{repository}/blobs/{artifact['config']['digest']}").content == b"{}"
        assert client.get(f"/v2/{repository}/referrers/{entry['digest']}").json()["manifests"] == []

        path = f"/v2/{repository}/referrers/{subject}"
        for kind, expected in ((LOCK_ARTIFACT, [entry]), ("application/vnd.example.sbom.v1", [])):
            filtered = client.get(path, params={"artifactType": kind})
            assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
            assert filtered.json()["manifests"] == expected
    for nothing in (NOWHERE, f"sha512:{'0' * 128}"):
        assert client.get(f"/v2/{REPOSITORY}/referrers/{nothing}").json()["manifests"] == []


def test_a_tag_follows_the_newest_pin(service: Service, index: PackageIndex) -> None:
    publish(index, "followed", "1.0")
    first = ask(service, "followed", "1")
    path = f"/v2/shop/followed/manifests/{TAG}"
    with service.client() as client:
        before = client.get(path)
        publish(index, "followed", "2.0")
        client.delete("/v1/pins/shop/followed")
        assert client.get(path).content == before.content, "a refresh alone changes nothing that runs"
        second = ask(service, "followed", "2")
        [entry] = client.get(path).json()["manifests"]
        assert entry["digest"] == second["bundle"]["digest"] != first["bundle"]["digest"]
        # What was pulled by its digest once can be pulled again.
        old = client.get(f"/v2/shop/followed/manifests/{before.headers['Docker-Content-Digest']}")
        assert old.content == before.content


def test_a_tag_has_every_machine_that_its_pin_covers(service: Service, index: PackageIndex) -> None:
    publish(index, "machines", "1.0")
    amd64 = ask(service, "machines", target={"python": "3.12", "platform": "manylinux_2_36_x86_64"})
    older = ask(service, "machines", target={"python": "3.12", "platform": "manylinux_2_17_x86_64"})
    arm64 = ask(service, "machines", target=ARM64)
    musl = ask(service, "machines", target={"python": "3.12", "platform": "musllinux_1_2_x86_64"})
    with service.client() as client:
        glibc = client.get(f"/v2/shop/machines/manifests/{TAG}").json()["manifests"]
        assert {entry["platform"]["architecture"]: entry["digest"] for entry in glibc} == {
            "amd64": older["bundle"]["digest"],  # runs wherever the newer one does
            "arm64": arm64["bundle"]["digest"],
        }
        assert older["bundle"]["digest"] != amd64["bundle"]["digest"]
        [entry] = client.get("/v2/shop/machines/manifests/cp312-musl").json()["manifests"]
        assert entry["digest"] == musl["bundle"]["digest"]


def test_a_lock_is_a_repository_too(client: httpx.Client, answer: dict[str, Any]) -> None:
    repository = f"locks/{answer['lock']['digest'].removeprefix('sha256:')}"
    assert client.get(f"/v2/{repository}/tags/list").json() == {"name": repository, "tags": [TAG]}
    by_lock, by_workload = (client.get(f"/v2/{name}/manifests/{TAG}") for name in (repository, REPOSITORY))
    assert by_lock.content == by_workload.content


def test_the_conformance_suite_passes(service: Service, answer: dict[str, Any], tmp_path: Any) -> None:
    """The specification's own suite (its `conformance` folder, built as `oci-conformance`), as far as it pulls."""
    suite = program("oci-conformance")
    with service.client() as client:
        index = client.get(f"/v2/{REPOSITORY}/manifests/{TAG}").headers["Docker-Content-Digest"]
        manifest = client.get(f"/v2/bundles/manifests/{answer['bundle']['digest']}").json()
    blobs = [part["digest"] for part in (manifest["config"], *manifest["layers"])]
    settings = {
        "OCI_REGISTRY": service.url.removeprefix("http://"),
        "OCI_TLS": "disabled",
        "OCI_REPO1": REPOSITORY,
        "OCI_RESULTS_DIR": str(tmp_path),
        "OCI_API_PUSH": "false",
        "OCI_API_BLOBS_DELETE": "false",
        "OCI_API_MANIFESTS_DELETE": "false",
        "OCI_API_TAGS_DELETE": "false",
        "OCI_API_BLOBS_DIGEST_HEADER": "true",
        "OCI_RO_DATA_TAGS": TAG,
        "OCI_RO_DATA_MANIFESTS": f"{index} {answer['bundle']['digest']}",
        "OCI_RO_DATA_BLOBS": " ".join(blobs),
        "OCI_RO_DATA_REFERRERS": f"{index} {answer['bundle']['digest']}",
    }
    # Not by its exit code: at its end it also writes files, and stumbles over what a run that pushes nothing has not.
    told = subprocess.run([suite], env={**os.environ, **settings}, capture_output=True, text=True, check=False).stdout
    assert "OCI Conformance Result: Pass" in told, told
    for part in ("Tag listing", "Blob get", "Blob head", "Manifest get by tag", "Manifest head by digest", "Referrers"):
        assert re.search(rf"{part}\.+: +Pass", told), told


def test_a_document_that_rots_is_made_again(service: Service, index: PackageIndex) -> None:
    publish(index, "rotten", "1.0")
    ask(service, "rotten")
    path = f"/v2/shop/rotten/manifests/{TAG}"
    with service.client() as client:
        sound = client.get(path)
        digest = sound.headers["Docker-Content-Digest"]
        [blob] = (service.data / "blobs").rglob(f"*{digest.removeprefix('sha256:')}*")
        blob.chmod(0o600)
        blob.write_bytes(secrets.token_bytes(blob.stat().st_size))
        by_digest = f"/v2/shop/rotten/manifests/{digest}"
        assert refused(client.get(by_digest)) == (404, "MANIFEST_UNKNOWN")
        deadline = time.monotonic() + 60
        while client.get(by_digest).content != sound.content:
            assert time.monotonic() < deadline
            assert client.get(path).content == sound.content, "by its tag it is made, not read"
            time.sleep(0.1)
