"""AdmissionReviews of every shape: whatever comes, the answer is well formed, and allows."""

import asyncio
import base64
import json
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver.api.webhooks import build_webhooks
from resolver.domain.injection import Delivery, Injected, inject
from resolver.domain.requests import Index, ResolveRequest
from resolver.service.admission import Admission
from resolver.service.lock_book import LockBook
from resolver.service.observing import Observing
from resolver.service.requests import Requests
from resolver.service.warm import Warming
from tests.support.functions import SERVER, patched
from tests.unit.domain.test_injection_any_pod import pods

DELIVERY = Delivery(SERVER, "0" * 64, "pass", client_image="registry.example.com/lockstep/client:1")
KIND = {"group": "", "version": "v1", "kind": "Pod"}

_keys = st.sampled_from(
    ["uid", "object", "metadata", "annotations", "labels", "spec", "containers", "lockstep.dev/requirements", "name"]
) | st.text(max_size=4)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "uid": st.just("a") | _json,
        "kind": st.just(KIND) | _json,
        "operation": st.just("CREATE") | _json,
        "namespace": st.just("shop") | _json,
        "dryRun": st.just(True),  # these start nothing
        "object": _json
        | st.fixed_dictionaries({"metadata": _json, "spec": _json})
        | st.builds(lambda pod, inner: {**pod, "spec": inner}, pods(), _json),
    },
)
_reviews = _json | st.fixed_dictionaries(
    {"apiVersion": st.just("admission.k8s.io/v1"), "kind": st.just("AdmissionReview"), "request": _requests | _json}
)


async def _unknown(request: ResolveRequest) -> int | None:
    return None


def _post(path: str, content: bytes) -> dict[str, Any]:
    # Dry runs make nothing ready.
    admission = Admission(
        DELIVERY,
        Requests([Index("pypi", "https://packages.example.com/simple")]),
        cast(Warming, None),
        _unknown,
        Observing(cast(Warming, None), cast(LockBook, None), lambda *_: None),
        platforms=[],
        tell=lambda *_: None,
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(build_webhooks(admission, lambda **_: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://webhook") as client:
            return await client.post(path, content=content)

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    body = answer.json()
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = body["response"]
    assert set(response) <= {"uid", "allowed", "patch", "patchType", "warnings"}
    assert response["allowed"] is True
    assert isinstance(response["uid"], str)
    assert all(each.isprintable() and len(each) <= 256 for each in response.get("warnings", []))
    return cast(dict[str, Any], response)


_paths = st.sampled_from(["/webhooks/v1/pods", "/webhooks/v1/pods/observe"])
fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@fuzzed
@given(_paths, _reviews)
def test_any_json(path: str, review: Any) -> None:
    response = _post(path, json.dumps(review).encode())
    request = review.get("request") if isinstance(review, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    assert response["uid"] == (uid if isinstance(uid, str) else "")


@fuzzed
@given(_paths, st.binary(max_size=40))
def test_any_bytes(path: str, content: bytes) -> None:
    assert "patch" not in _post(path, content)


@fuzzed
@given(pods())
def test_any_pod_gets_the_patch_that_it_needs(pod: dict[str, Any]) -> None:
    request = {"uid": "a", "kind": KIND, "operation": "CREATE", "namespace": "shop", "dryRun": True, "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    content = json.dumps(review).encode()
    found = inject(pod, DELIVERY, namespace="shop")
    response = _post("/webhooks/v1/pods", content)
    assert ("patch" in response) == isinstance(found, Injected)
    if isinstance(found, Injected):
        assert response["patchType"] == "JSONPatch"
        assert patched(pod, json.loads(base64.b64decode(response["patch"], validate=True))) == found.pod
    assert "patch" not in _post("/webhooks/v1/pods/observe", content)


@pytest.mark.parametrize("number", ["1" * 5000, "1e400", "NaN"])
def test_numbers_that_are_none(number: str) -> None:
    review = f'{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {{"uid": {number}}}}}'
    assert _post("/webhooks/v1/pods", review.encode())["warnings"]
