"""Requirements in, one lock and one bundle out: the real service, the real uv, a real index on loopback."""

import asyncio
import json
import tarfile
from io import BytesIO
from pathlib import Path

import httpx
from packaging.pylock import Pylock

from resolver.domain.locks import Lock
from resolver.domain.targets import TargetEnvironment
from storage.content import Digest
from tests.integration.conftest import blobs, publish
from tests.support.index import PackageIndex
from tests.support.service import Service
from tests.support.wheels import make_sdist, make_wheel

TARGET = TargetEnvironment.from_platform("3.12", "manylinux_2_28_x86_64")


def metric(service: Service, name: str) -> float:
    """A sample of /metrics, by its name with labels."""
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_a_set_becomes_a_lock_and_a_bundle(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    publish(index, name, "1.1", requires=[f"{name}-dep>=2; python_version >= '3.8'"])
    publish(index, f"{name}-dep", "2.5")

    answer = service.resolve(f"{name}>=1\n").json()

    assert answer["outcome"] == "resolved"
    assert answer["pin"] is None
    assert answer["target"] == {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
    assert [(p["name"], p["version"]) for p in answer["lock"]["packages"]] == [(name, "1.1"), (f"{name}-dep", "2.5")]
    with service.client() as client:
        lock = Lock.parse(client.get(f"/v1/locks/{answer['lock']['digest']}/pylock.toml").content)
        assert lock.digest == answer["lock"]["digest"]
        assert isinstance(lock.pylock, Pylock)
        assert [wheel.filename for _, wheel in lock.select(TARGET)] == [
            package["wheel"] for package in answer["lock"]["packages"]
        ]
        assert lock.pylock.packages[0].dependencies == [{"name": f"{name}-dep"}]
        manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}")
        assert Digest.of(manifest.content) == answer["bundle"]["digest"]
        config = client.get(f"/v1/blobs/{manifest.json()['config']['digest']}").json()
        assert config["architecture"] == "amd64"
        tree = set[str]()
        for diff_id in config["rootfs"]["diff_ids"]:
            plain = client.get(f"/v1/blobs/{diff_id}").content
            assert Digest.of(plain) == diff_id
            with tarfile.open(fileobj=BytesIO(plain)) as archive:
                tree |= set(archive.getnames())
    module = name.replace("-", "_")
    assert {f"site-packages/{module}/__init__.py", f"site-packages/{module}-1.1.dist-info/METADATA"} <= tree


def test_asking_again_is_answered_from_the_store(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    first = service.resolve(name).json()
    asked, kept = len(index.requests), blobs(service)
    publish(index, name, "2.0")

    again = service.resolve([f"{name.upper().replace('-', '_')}  # the same, written otherwise"]).json()

    assert again["outcome"] == "cached"
    assert again["lock"] == first["lock"]
    assert again["bundle"] == first["bundle"]
    assert len(index.requests) == asked
    assert blobs(service) == kept


def test_another_kernel_and_patch_release_of_a_class_is_a_hit(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    warmed = service.resolve(name).json()
    markers = {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "platform_release": "6.1.0-18-cloud-amd64",
        "platform_version": "#1 SMP Debian",
        "python_full_version": "3.12.9",
        "python_version": "3.12",
        "sys_platform": "linux",
    }

    asked = service.resolve(name, target={"markers": markers, "libc": "glibc 2.30"}).json()

    assert asked["outcome"] == "cached"
    assert asked["bundle"] == warmed["bundle"]
    assert asked["target"] == {"python": "3.12", "platform": "manylinux_2_28_x86_64"}


def test_a_marker_on_what_splits_no_class_is_told(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    answer = service.resolve(f"{name} ; python_full_version >= '3.12.0'").json()
    assert [warning["code"] for warning in answer["warnings"]] == ["class-base", "no-bytecode"]
    assert "line 1" in answer["warnings"][0]["message"]


async def test_fifty_first_requests_are_one_resolve_and_one_fetch(
    service: Service, index: PackageIndex, name: str
) -> None:
    wheels = [publish(index, name, "1.0", requires=[f"{name}-dep"]), publish(index, f"{name}-dep", "1.0")]
    runs = metric(service, 'lockstep_resolve_seconds_count{engine="uv"}')
    body = {"requirements": name, "target": {"python": "3.12", "platform": "musllinux_1_2_x86_64"}, "wait": 100}

    async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=httpx.Limits(max_connections=60)) as client:
        cut_off = asyncio.create_task(client.post("/v1/resolve", json=body))
        callers = [asyncio.create_task(client.post("/v1/resolve", json=body)) for _ in range(50)]
        await asyncio.sleep(0.05)
        cut_off.cancel()
        answers = [answer.json() for answer in await asyncio.gather(*callers)]

    assert len({json.dumps([answer["lock"], answer["bundle"]], sort_keys=True) for answer in answers}) == 1
    assert metric(service, 'lockstep_resolve_seconds_count{engine="uv"}') == runs + 1
    assert [index.count(f"/{wheel}") - index.count(f"/{wheel}.metadata") for wheel in wheels] == [1, 1]


def test_work_that_takes_longer_than_the_caller_waits_is_an_operation(
    service: Service, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    with service.client() as client:
        body = {"requirements": name, "target": {"python": "3.12", "platform": "manylinux_2_28_x86_64"}, "wait": 0}
        started = client.post("/v1/resolve", json=body)
        assert started.status_code == 202
        assert started.json()["state"] == "running"
        location = started.headers["Location"]
    for _ in range(600):
        with service.client() as client:
            followed = client.get(location)
        if followed.status_code != 202:
            break
        asyncio.run(asyncio.sleep(0.1))
    assert followed.status_code == 200
    assert followed.json()["outcome"] == "resolved"
    assert followed.json()["lock"]["packages"][0]["name"] == name


def test_an_empty_set_is_an_empty_bundle(service: Service) -> None:
    answer = service.resolve("# nothing\n")
    assert answer.status_code == 200
    assert answer.json()["lock"]["packages"] == []
    with service.client() as client:
        assert client.get(f"/v1/bundles/{answer.json()['bundle']['digest']}").status_code == 200


def test_constraints_bound_what_is_chosen(service: Service, index: PackageIndex, name: str) -> None:
    for version in ("1.0", "2.0", "3.0"):
        publish(index, name, version)
    answer = service.resolve(name, constraints=f"{name}<3").json()
    assert answer["lock"]["packages"][0]["version"] == "2.0"


def test_a_required_package_whose_newest_version_needs_a_build_is_refused(
    service: Service, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    index.add(*make_sdist(name, "2.0"))

    refused = service.resolve(name)
    assert refused.status_code == 422
    problem = refused.json()
    assert problem["type"].endswith(":build-required")
    assert (problem["package"], problem["version"]) == (name, "2.0")
    assert any("1.0" in hint for hint in problem["hints"])

    assert service.resolve(f"{name}==1.0").status_code == 200


def test_a_set_unsolvable_for_want_of_a_wheel_is_build_required(
    service: Service, index: PackageIndex, name: str
) -> None:
    index.add(*make_sdist(f"{name}-dep", "1.0"))
    publish(index, name, "1.0", requires=[f"{name}-dep"])
    for requirements in (f"{name}-dep", name):
        problem = service.resolve(requirements).json()
        assert problem["type"].endswith(":build-required"), problem
        assert problem["package"] == f"{name}-dep"


def test_a_transitive_package_that_was_passed_over_is_a_warning(
    service: Service, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0", requires=[f"{name}-dep>=1"])
    publish(index, f"{name}-dep", "1.0")
    index.add(*make_sdist(f"{name}-dep", "1.5"))
    warnings = service.resolve(name).json()["warnings"]
    assert [(warning["code"], warning["package"]) for warning in warnings if warning["code"] == "passed-over"] == [
        ("passed-over", f"{name}-dep")
    ]


def test_a_yanked_wheel_that_is_required_exactly_is_told(service: Service, index: PackageIndex, name: str) -> None:
    filename, content = make_wheel(name, "1.0")
    index.add(filename, content, yanked="breaks everything")
    warnings = service.resolve(f"{name}==1.0").json()["warnings"]
    assert any(w["code"] == "yanked" and "breaks everything" in w["message"] for w in warnings)


def test_two_wheels_that_write_one_path_are_told_and_the_later_one_wins(
    service: Service, index: PackageIndex, name: str
) -> None:
    for part in ("a", "b"):
        publish(index, f"{name}-{part}", "1.0", files={"tests/data.txt": part, f"{name}_{part}.py": ""})
    answer = service.resolve([f"{name}-b", f"{name}-a"]).json()
    (told,) = [warning for warning in answer["warnings"] if warning["code"] == "path-conflict"]
    assert "site-packages/tests/data.txt" in told["message"]
    with service.client() as client:
        manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
    wheels = [layer["annotations"]["dev.lockstep.wheel"] for layer in manifest["layers"]]
    assert [wheel.partition("-")[0][-1] for wheel in wheels] == ["a", "b"]


def test_a_strict_operator_refuses_two_wheels_that_write_one_path(
    index: PackageIndex, name: str, tmp_path: Path
) -> None:
    for part in ("a", "b"):
        publish(index, f"{name}-{part}", "1.0", files={"tests/data.txt": part})
    with Service(tmp_path / "data", index_url=index.url, flags=["--shared-paths", "refuse"]) as service:
        refused = service.resolve([f"{name}-b", f"{name}-a"])
        assert refused.status_code == 422
        assert refused.json()["type"].endswith(":invalid-request")
        assert "site-packages/tests/data.txt" in refused.json()["detail"]
        with service.client() as client:
            assert client.get("/v1/locks").json()["items"] == []


def test_a_blob_is_served_in_parts_and_not_again(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    answer = service.resolve(name).json()
    with service.client() as client:
        manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
        config = client.get(f"/v1/blobs/{manifest['config']['digest']}").json()
        for digest in (manifest["layers"][0]["digest"], config["rootfs"]["diff_ids"][0]):
            path = f"/v1/blobs/{digest}"
            whole = client.get(path)
            assert whole.headers["Cache-Control"].startswith("max-age=31536000, immutable")
            assert "Content-Encoding" not in whole.headers
            size = len(whole.content)
            for header, start, end in (("bytes=0-9", 0, 10), ("bytes=100-", 100, size), ("bytes=-7", size - 7, size)):
                part = client.get(path, headers={"Range": header})
                assert part.status_code == 206
                assert part.content == whole.content[start:end]
                assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
            assert client.get(path, headers={"Range": f"bytes={size}-"}).status_code == 416
            assert client.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
            head = client.head(path)
            assert (head.headers["Content-Length"], head.content) == (str(size), b"")
