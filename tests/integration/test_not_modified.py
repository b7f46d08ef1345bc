"""What a caller has already is not sent again; lists show a few pins of a lock, and say how many there are."""

import pytest

from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service

AMD64 = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}


@pytest.mark.parametrize("part", ["", "/pylock.toml", "/requirements.txt"])
def test_a_lock_that_the_caller_has(service: Service, index: PackageIndex, name: str, part: str) -> None:
    publish(index, name, "1.0")
    lock = service.resolve(name).json()["lock"]["digest"]
    path = f"/v1/locks/{lock}{part}"
    with service.client() as client:
        first = client.get(path)
        etag = first.headers["ETag"]
        for given in (etag, f'"other", {etag}', f"W/{etag}"):
            again = client.get(path, headers={"If-None-Match": given})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        changed = client.get(path, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, first.content)
        assert ("immutable" in first.headers["Cache-Control"]) == bool(part)


def test_a_lock_that_is_pinned_anew_is_sent_again(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    lock = service.resolve(name).json()["lock"]["digest"]
    with service.client() as client:
        etag = client.get(f"/v1/locks/{lock}").headers["ETag"]
        service.resolve(name, workload={"namespace": "shop", "name": name, "revision": "r1"})
        again = client.get(f"/v1/locks/{lock}", headers={"If-None-Match": etag})
    assert (again.status_code, again.json()["pin_count"]) == (200, 1)


def test_the_pins_of_a_lock(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    for number in range(5):
        workload = {"namespace": "shop", "name": name, "revision": f"r{number}"}
        lock = service.resolve(name, workload=workload).json()["lock"]["digest"]
    with service.client() as client:
        [listed] = client.get("/v1/locks", params={"package": name}).json()["items"]
        whole = client.get(f"/v1/locks/{lock}").json()
        pins = client.get("/v1/pins", params={"lock": lock, "limit": 3}).json()
        rest = client.get("/v1/pins", params={"lock": lock, "cursor": pins["cursor"]}).json()
        refused = client.get("/v1/pins", params={"lock": "no digest"})
    for shown in (listed, whole):
        assert shown["pin_count"] == 5
        assert [pin["revision"] for pin in shown["pins"]] == ["r4", "r3", "r2"]
    assert [pin["revision"] for pin in (*pins["items"], *rest["items"])] == ["r4", "r3", "r2", "r1", "r0"]
    assert rest["cursor"] is None
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:lockstep:problem:invalid-request")
