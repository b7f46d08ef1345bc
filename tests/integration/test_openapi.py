"""The OpenAPI document is well formed, and what the service answers is what the document says."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import Service

Document = Mapping[str, Any]

TARGET = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
NOWHERE = "sha256:" + "0" * 64
METHODS = {"get", "head", "post", "put", "delete"}
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@pytest.fixture(scope="module")
def document(service: Service) -> Document:
    with service.client() as client:
        found: Document = client.get("/openapi.json").json()
        return found


@pytest.fixture(scope="module")
def known(service: Service, index: PackageIndex) -> dict[str, str]:
    """Names of what is there, for paths."""
    publish(index, "described", "1.0", requires=["described-dep"])
    publish(index, "described-dep", "1.0")
    workload = {"namespace": "shop", "name": "described", "revision": "1"}
    answer = service.resolve("described", workload=workload).json()
    with service.client() as client:
        operation = client.post("/v1/resolve", json={"requirements": "described", "target": TARGET, "wait": 0})
        manifest = client.get(f"/v1/bundles/{answer['bundle']['digest']}").json()
    return {
        "lock": answer["lock"]["digest"],
        "bundle": answer["bundle"]["digest"],
        "blob": manifest["layers"][0]["digest"],
        "operation": operation.headers["Location"].rpartition("/")[2],
    }


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def resolved(schema: Document, document: Document) -> Document:
    if "$ref" not in schema:
        return schema
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return resolved(found, document)


def objections(value: Any, schema: Document, document: Document, at: str = "$") -> Iterator[str]:
    """Where the value is not as the schema has it: as much of JSON Schema as the document uses."""
    schema = resolved(schema, document)
    if "anyOf" in schema:
        if all(any(objections(value, each, document, at)) for each in schema["anyOf"]):
            yield f"{at}: none of anyOf: {value!r}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema:
        fits = isinstance(value, TYPES[schema["type"]]) and (schema["type"] == "boolean" or not isinstance(value, bool))
        if not fits:
            yield f"{at}: {value!r} is no {schema['type']}"
            return
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield from (f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value)
        if properties and "additionalProperties" not in schema:
            yield from (f"{at}: {name} is not described" for name in value.keys() - properties.keys())
        for name in value.keys() & properties.keys():
            yield from objections(value[name], properties[name], document, f"{at}.{name}")
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from objections(item, schema.get("items", {}), document, f"{at}[{position}]")


def assert_as_described(document: Document, route: str, answer: httpx.Response) -> None:
    operation = document["paths"][route][answer.request.method.lower()]
    described = operation["responses"].get(str(answer.status_code))
    assert described is not None, f"{route}: {answer.status_code} is not described: {answer.text}"
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if answer.status_code == 304:
        assert "content" not in described
        return
    assert media_type in described["content"], f"{route}: {answer.status_code} as {media_type}"
    if media_type.endswith("json") and answer.request.method != "HEAD":
        assert [*objections(answer.json(), described["content"][media_type]["schema"], document)] == []


def test_it_is_well_formed(document: Document) -> None:
    assert document["openapi"].startswith("3.1")
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert sorted(set(identifiers)) == sorted(identifiers)
    for reference in re.findall(r"'\$ref': '([^']+)'", str(document)):
        assert resolved({"$ref": reference}, document)
    for path, method, operation in operations(document):
        assert method in METHODS
        assert operation["summary"]
        assert any(status.startswith("2") for status in operation["responses"])
        assert all(response["description"] for response in operation["responses"].values())
        in_path = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))


def test_every_error_is_a_problem(document: Document) -> None:
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400" and path != "/readyz":
                [(media_type, content)] = response["content"].items()
                found = media_type, content["schema"]["$ref"].rpartition("/")[2]
                # An OCI client reads errors as its own specification has them.
                of_oci = path.startswith("/v2/")
                assert found == (
                    ("application/json", "OciErrors") if of_oci else ("application/problem+json", "Problem")
                )


def test_the_routes_of_the_contract_are_in_it(document: Document) -> None:
    found = {(method.upper(), re.sub(r"{\w+}", "{}", path)) for path, method, _ in operations(document)}
    assert found >= {
        ("POST", "/v1/resolve"),
        ("GET", "/v1/operations/{}"),
        ("GET", "/v1/locks"),
        ("GET", "/v1/locks/{}"),
        ("GET", "/v1/locks/{}/pylock.toml"),
        ("GET", "/v1/locks/{}/requirements.txt"),
        ("GET", "/v1/locks/{}/diff/{}"),
        ("GET", "/v1/locks/{}/why/{}"),
        ("GET", "/v1/pins"),
        ("DELETE", "/v1/pins/{}/{}"),
        ("GET", "/v1/bundles/{}"),
        ("GET", "/v1/blobs/{}"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/client/lockstep.pyz"),
        ("GET", "/v2/"),
        ("GET", "/v2/{}/tags/list"),
        ("GET", "/v2/{}/manifests/{}"),
        ("HEAD", "/v2/{}/manifests/{}"),
        ("GET", "/v2/{}/blobs/{}"),
        ("HEAD", "/v2/{}/blobs/{}"),
        ("GET", "/v2/{}/referrers/{}"),
    }


@pytest.mark.parametrize(
    ("method", "route", "path", "status"),
    [
        ("GET", "/v1/operations/{identifier}", "/v1/operations/{operation}", 200),
        ("GET", "/v1/operations/{identifier}", "/v1/operations/none", 404),
        ("GET", "/v1/locks", "/v1/locks?package=described", 200),
        ("GET", "/v1/locks", "/v1/locks?limit=0", 422),
        ("GET", "/v1/locks", "/v1/locks?cursor=bogus", 422),
        ("GET", "/v1/locks/{digest}", "/v1/locks/{lock}", 200),
        ("GET", "/v1/locks/{digest}", f"/v1/locks/{NOWHERE}", 404),
        ("GET", "/v1/locks/{digest}", "/v1/locks/latest", 422),
        ("GET", "/v1/locks/{digest}/pylock.toml", "/v1/locks/{lock}/pylock.toml", 200),
        ("GET", "/v1/locks/{digest}/requirements.txt", "/v1/locks/{lock}/requirements.txt", 200),
        ("GET", "/v1/locks/{a}/diff/{b}", "/v1/locks/{lock}/diff/{lock}", 200),
        ("GET", "/v1/locks/{a}/diff/{b}", "/v1/locks/{lock}/diff/" + NOWHERE, 404),
        ("GET", "/v1/locks/{digest}/why/{package}", "/v1/locks/{lock}/why/described-dep", 200),
        ("GET", "/v1/locks/{digest}/why/{package}", "/v1/locks/{lock}/why/absent", 404),
        ("GET", "/v1/pins", "/v1/pins?namespace=shop", 200),
        ("DELETE", "/v1/pins/{namespace}/{workload}", "/v1/pins/shop/other", 200),
        ("DELETE", "/v1/pins/{namespace}/{workload}", "/v1/pins/SHOP/other", 422),
        ("GET", "/v1/bundles/{digest}", "/v1/bundles/{bundle}", 200),
        ("HEAD", "/v1/bundles/{digest}", "/v1/bundles/{bundle}", 200),
        ("GET", "/v1/bundles/{digest}", f"/v1/bundles/{NOWHERE}", 404),
        ("GET", "/v1/blobs/{digest}", "/v1/blobs/{blob}", 200),
        ("HEAD", "/v1/blobs/{digest}", "/v1/blobs/{blob}", 200),
        ("GET", "/v1/blobs/{digest}", "/v1/blobs/sha256:xyz", 422),
        ("GET", "/healthz", "/healthz", 200),
        ("GET", "/readyz", "/readyz", 200),
        ("GET", "/metrics", "/metrics", 200),
        ("GET", "/client/lockstep.pyz", "/client/lockstep.pyz", 200),
        ("HEAD", "/client/lockstep.pyz", "/client/lockstep.pyz", 200),
        ("GET", "/v2/", "/v2/", 200),
        ("GET", "/v2/{name}/tags/list", "/v2/shop/described/tags/list", 200),
        ("GET", "/v2/{name}/tags/list", "/v2/shop/nobody/tags/list", 404),
        ("GET", "/v2/{name}/tags/list", "/v2/shop/described/tags/list?n=x", 400),
        ("GET", "/v2/{name}/manifests/{reference}", "/v2/shop/described/manifests/cp312-glibc", 200),
        ("GET", "/v2/{name}/manifests/{reference}", "/v2/bundles/manifests/{bundle}", 200),
        ("HEAD", "/v2/{name}/manifests/{reference}", "/v2/bundles/manifests/{bundle}", 200),
        ("GET", "/v2/{name}/manifests/{reference}", "/v2/bundles/manifests/" + NOWHERE, 404),
        ("GET", "/v2/{name}/blobs/{digest}", "/v2/bundles/blobs/{blob}", 200),
        ("GET", "/v2/{name}/blobs/{digest}", "/v2/bundles/blobs/sha256:xyz", 400),
        ("GET", "/v2/{name}/referrers/{digest}", "/v2/bundles/referrers/{bundle}", 200),
    ],
)
def test_an_answer_is_as_it_says(
    service: Service, document: Document, known: dict[str, str], method: str, route: str, path: str, status: int
) -> None:
    with service.client() as client:
        answer = client.request(method, path.format(**known))
    assert answer.status_code == status, answer.text
    assert_as_described(document, route, answer)


@pytest.mark.parametrize("route", ["/v1/bundles/{digest}", "/v1/blobs/{digest}"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Range": "bytes=1-3"}, 206), ({"Range": "bytes=999999999-"}, 416), ({"If-None-Match": '"{}"'}, 304)],
)
def test_parts_of_a_content_are_as_it_says(
    service: Service, document: Document, known: dict[str, str], route: str, headers: dict[str, str], status: int
) -> None:
    digest = known["bundle" if "bundles" in route else "blob"]
    with service.client() as client:
        answer = client.get(
            route.format(digest=digest), headers={name: value.format(digest) for name, value in headers.items()}
        )
    assert answer.status_code == status, answer.text
    if status == 206:  # a part of a document is no document
        assert answer.headers["Content-Type"] in document["paths"][route]["get"]["responses"]["206"]["content"]
    else:
        assert_as_described(document, route, answer)


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("POST", "/v1/resolve", {"requirements": "described", "target": TARGET}, 200),
        ("POST", "/v1/resolve", {"requirements": ["described"], "target": TARGET, "wait": 0}, 202),
        ("POST", "/v1/resolve", {"requirements": "absent-for-sure", "target": TARGET}, 422),
        ("POST", "/v1/resolve", {"requirements": "-e .", "target": TARGET}, 422),
        ("POST", "/v1/resolve", {"requirements": "x", "target": {**TARGET, "python": "2.7"}}, 422),
        ("POST", "/v1/resolve", {"requirements": "x"}, 422),
        ("POST", "/v1/resolve", {"requirements": "#" * (1 << 20), "target": TARGET}, 413),
        ("PUT", "/v1/pins/{namespace}/{workload}/hold", {"lock": "{lock}"}, 200),
        ("PUT", "/v1/pins/{namespace}/{workload}/hold", {"lock": NOWHERE}, 404),
        ("PUT", "/v1/pins/{namespace}/{workload}/hold", {"lock": "latest"}, 422),
        ("PUT", "/v1/pins/{namespace}/{workload}/hold", {"lock": "x" * (1 << 20)}, 413),
    ],
)
def test_an_answer_to_a_body_is_as_it_says(
    service: Service,
    document: Document,
    known: dict[str, str],
    method: str,
    route: str,
    body: dict[str, Any],
    status: int,
) -> None:
    sent = {name: known["lock"] if value == "{lock}" else value for name, value in body.items()}
    with service.client() as client:
        answer = client.request(method, route.format(namespace="shop", workload="described"), json=sent)
    assert answer.status_code == status, answer.text
    assert_as_described(document, route, answer)


def test_what_a_body_may_hold_is_what_it_says(service: Service, document: Document) -> None:
    """A field that the document does not name is refused; each one that it names is taken."""
    schema = resolved(
        document["paths"]["/v1/resolve"]["post"]["requestBody"]["content"]["application/json"]["schema"], document
    )
    assert schema["additionalProperties"] is False
    everything = {
        "requirements": [],
        "constraints": "",
        "target": TARGET,
        "workload": {"namespace": "shop", "name": "empty", "revision": "1"},
        "indexes": ["pypi"],
        "exclude_newer": "2026-11-01T00:00:00Z",
        "prereleases": True,
        "wait": 30,
    }
    assert everything.keys() == schema["properties"].keys()
    assert [*objections(everything, schema, document)] == []
    with service.client() as client:
        assert client.post("/v1/resolve", json=everything).status_code == 200
        assert client.post("/v1/resolve", json={**everything, "speed": "fast"}).status_code == 422
