"""Who may what, on a real service: Pods by their tokens, people and jobs by theirs, an index for one namespace."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import publish
from tests.support.cluster import Cluster, cluster
from tests.support.index import PackageIndex
from tests.support.registries import program, run
from tests.support.service import ROOT, Service
from tests.support.wheels import make_wheel

TARGET = {"python": "3.12", "platform": "manylinux_2_28_x86_64"}
ADA, CI, MORE = "planted-token-of-ada", "planted-token-of-ci", "planted-token-of-another"
WARM = "system:serviceaccount:lockstep:lockstep-warm"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Cluster]:
    with cluster() as started:
        yield started


@pytest.fixture(scope="module")
def private() -> Iterator[PackageIndex]:
    with PackageIndex() as started:
        yield started


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    entries = [
        {"name": "ada", "role": "operator", "sha256": hashlib.sha256(ADA.encode()).hexdigest()},
        {"name": "ci", "role": "reader", "namespaces": ["shop", "bank"], "token": CI},
    ]
    path.write_text(json.dumps({"tokens": entries}))
    return path


@pytest.fixture(scope="module")
def service(
    kubernetes: Cluster,
    index: PackageIndex,
    private: PackageIndex,
    tokens: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """With an index that is open to `shop` alone."""
    folder = tmp_path_factory.mktemp("identity")
    config = {
        "auth": ["kubernetes", "static"],
        "auth_tokens": str(tokens),
        "auth_issuer": kubernetes.issuer,
        "auth_operators": [WARM],
        "indexes": [
            {"name": "internal", "url": private.url, "namespaces": ["shop"]},
            {"name": "pypi", "url": index.url},
        ],
        "log_level": "debug",
    }
    (folder / "lockstep.yaml").write_text(json.dumps(config))
    with Service(folder / "data", flags=["--config", str(folder / "lockstep.yaml")]) as started:
        yield started


class Asking:
    """Somebody with a token."""

    def __init__(self, service: Service, token: str | None) -> None:
        self._url = service.url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=120, verify=False) as client:
            return client.request(method, path, json=body)

    def get(self, path: str) -> httpx.Response:
        return self("GET", path)

    def resolve(self, requirements: str, **fields: Any) -> httpx.Response:
        return self("POST", "/v1/resolve", {"requirements": requirements, "target": TARGET, "wait": 100, **fields})


@pytest.fixture(scope="module")
def shop(service: Service, kubernetes: Cluster) -> Asking:
    return Asking(service, kubernetes.token("shop"))


@pytest.fixture(scope="module")
def bank(service: Service, kubernetes: Cluster) -> Asking:
    return Asking(service, kubernetes.token("bank"))


@pytest.fixture(scope="module")
def ci(service: Service) -> Asking:
    return Asking(service, CI)


@pytest.fixture(scope="module")
def ada(service: Service) -> Asking:
    return Asking(service, ADA)


def slug(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_pod_resolves_and_pins_for_its_own_namespace(
    shop: Asking, bank: Asking, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    named = {"name": name, "namespace": "shop", "revision": "r1"}
    first = shop.resolve(name, workload=named)
    assert first.json()["pin"] == {"namespace": "shop", "workload": name, "revision": "r1"}
    # The one that it leaves out is its own; and what is ready-made for one namespace is so for that one alone.
    unnamed = {"name": name, "revision": "r1"}
    for _ in range(3):
        assert shop.resolve(name, workload=unnamed).json()["pin"]["namespace"] == "shop"
        assert bank.resolve(name, workload=unnamed).json()["pin"]["namespace"] == "bank"
        assert shop.resolve(name, workload=named).json()["outcome"] == "pinned"
        assert slug(bank.resolve(name, workload=named)) == (403, "forbidden")


def test_somebody_says_of_which_namespace_a_workload_is(
    ci: Asking, ada: Asking, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    for caller in (ci, ada):  # of two, and of all
        refused = caller.resolve(name, workload={"name": name})
        assert slug(refused) == (422, "invalid-request")
        assert refused.json()["field"] == "workload.namespace"
        assert caller.resolve(name, workload={"name": name, "namespace": "bank"}).status_code == 200
    assert slug(ci.resolve(name, workload={"name": name, "namespace": "other"})) == (403, "forbidden")
    assert ada.resolve(name, workload={"name": name, "namespace": "other"}).status_code == 200


def test_nobody_is_answered_without_a_token(service: Service, kubernetes: Cluster) -> None:
    expired = kubernetes.token(exp=1)
    for token in (None, "planted-token-of-nobody", expired, kubernetes.token(aud="https://kubernetes.default.svc")):
        asking = Asking(service, token)
        for answer in (asking.resolve("x"), asking.get("/v1/pins"), asking.get("/openapi.json"), asking.get("/v2/")):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"]
    assert "expired" in Asking(service, expired).get("/v1/pins").json()["detail"]
    nobody = Asking(service, None)
    for path in ("/healthz", "/readyz", "/metrics", "/client/lockstep.pyz"):
        assert nobody.get(path).status_code == 200


@pytest.fixture(scope="module")
def secret(shop: Asking, private: PackageIndex, index: PackageIndex) -> dict[str, Any]:
    """What a Pod of `shop` has of the index that is open to it alone, with a package that is everybody's."""
    private.add(*make_wheel("of-the-shop", "1.0", requires=["of-everybody"]))
    index.add(*make_wheel("of-everybody", "1.0"))
    answer = shop.resolve("of-the-shop", workload={"name": "secret", "revision": "r1"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    manifest = shop.get(f"/v1/bundles/{found['bundle']['digest']}").json()
    found["layers"] = [layer["digest"] for layer in manifest["layers"]]
    found["config"] = manifest["config"]["digest"]
    found["diff_ids"] = shop.get(f"/v1/blobs/{found['config']}").json()["rootfs"]["diff_ids"]
    return found


def paths(secret: dict[str, Any]) -> list[str]:
    """All by which a lock and its bundle can be had."""
    lock, bundle = secret["lock"]["digest"], secret["bundle"]["digest"]
    contents = [bundle, secret["config"], *secret["layers"], *secret["diff_ids"]]
    return [
        *(f"/v1/locks/{lock}{rest}" for rest in ("", "/pylock.toml", "/requirements.txt", f"/diff/{lock}")),
        f"/v1/locks/{lock}/why/of-everybody",
        f"/v1/bundles/{bundle}",
        *(f"/v1/blobs/{digest}" for digest in contents),
        f"/v2/bundles/manifests/{bundle}",
        *(f"/v2/bundles/blobs/{digest}" for digest in contents),
        f"/v2/locks/{lock.removeprefix('sha256:')}/tags/list",
        f"/v2/locks/{lock.removeprefix('sha256:')}/manifests/cp312-glibc",
    ]


def test_what_is_of_one_namespace_is_not_there_for_another(
    secret: dict[str, Any], shop: Asking, bank: Asking, ci: Asking, ada: Asking
) -> None:
    absent = "sha256:" + "0" * 64
    for path in paths(secret):
        for caller in (shop, ci, ada):
            assert caller.get(path).status_code == 200, path
        refused = bank.get(path)
        assert refused.status_code == 404, path
        # It reads as what is not there does.
        same = bank.get(path.replace(path.split("sha256:")[-1], absent[7:])) if "sha256:" in path else None
        if same is not None and path.startswith("/v1/blobs"):
            digest = path.rpartition("/")[2]
            assert refused.json()["detail"].replace(digest, "") == same.json()["detail"].replace(absent, "")
            assert not {each for each in secret["layers"] if each in refused.text and each not in path}
    bundle = secret["bundle"]["digest"]
    assert bank.get(f"/v2/bundles/referrers/{bundle}").json()["manifests"] == []
    assert len(shop.get(f"/v2/bundles/referrers/{bundle}").json()["manifests"]) == 1


def test_a_workloads_repository_is_of_its_namespace(
    secret: dict[str, Any], shop: Asking, bank: Asking, index: PackageIndex, name: str
) -> None:
    for path in ("tags/list", "manifests/cp312-glibc", f"blobs/{secret['layers'][0]}"):
        assert shop.get(f"/v2/shop/secret/{path}").status_code == 200
        assert bank.get(f"/v2/shop/secret/{path}").status_code == 403
    # A repository of its own is no way to what is not.
    publish(index, name, "1.0")
    assert bank.resolve(name, workload={"name": name}).status_code == 200
    assert bank.get(f"/v2/bank/{name}/tags/list").status_code == 200
    for digest in (secret["bundle"]["digest"], secret["layers"][0]):
        assert bank.get(f"/v2/bank/{name}/blobs/{digest}").status_code == 404
        assert bank.get(f"/v2/bank/{name}/manifests/{digest}").status_code == 404


def test_lists_are_of_ones_own_namespaces(
    secret: dict[str, Any], shop: Asking, bank: Asking, ci: Asking, ada: Asking, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    lock = shop.resolve(name, workload={"name": name}).json()["lock"]["digest"]
    assert bank.resolve(name, workload={"name": name}).json()["lock"]["digest"] == lock, "of an open index: shared"

    def namespaces(answer: httpx.Response) -> set[str]:
        return {pin["namespace"] for pin in answer.json()["items"]}

    assert namespaces(shop.get("/v1/pins?limit=500")) == {"shop"}
    assert namespaces(bank.get("/v1/pins?limit=500")) == {"bank"}
    assert namespaces(ada.get("/v1/pins?limit=500")) >= {"shop", "bank"}
    assert namespaces(ci.get("/v1/pins?limit=500&namespace=bank")) == {"bank"}
    for path in ("/v1/pins", "/v1/locks"):
        assert slug(bank.get(f"{path}?namespace=shop")) == (403, "forbidden")
        assert slug(ci.get(path)) == (422, "invalid-request")  # of two: it has to say which
        assert slug(ci.get(f"{path}?namespace=other")) == (403, "forbidden")
    for caller, namespace in ((shop, "shop"), (bank, "bank")):
        items = {item["digest"]: item for item in caller.get("/v1/locks?limit=500").json()["items"]}
        assert (secret["lock"]["digest"] in items) == (caller is shop)
        for item in (items[lock], caller.get(f"/v1/locks/{lock}").json()):
            assert (item["pin_count"], [pin["namespace"] for pin in item["pins"]]) == (1, [namespace])
    assert ada.get(f"/v1/locks/{lock}").json()["pin_count"] == 2


def test_what_is_for_no_workload_can_be_fetched(shop: Asking, bank: Asking, private: PackageIndex, name: str) -> None:
    private.add(*make_wheel(name, "1.0"))
    answer = shop.resolve(name)
    assert (answer.status_code, answer.json()["pin"]) == (200, None)
    bundle, lock = answer.json()["bundle"]["digest"], answer.json()["lock"]["digest"]
    for path in (f"/v1/bundles/{bundle}", f"/v1/locks/{lock}"):
        assert shop.get(path).status_code == 200
        assert bank.get(path).status_code == 404
    assert slug(bank.resolve(name)) == (422, "no-solution"), "its name is asked of the open index alone"


def test_what_others_rely_on_is_changed_by_operators(
    service: Service, kubernetes: Cluster, shop: Asking, ci: Asking, ada: Asking, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    lock = shop.resolve(name, workload={"name": name, "revision": "r1"}).json()["lock"]["digest"]
    entry = {"name": name, "requirements": name, "targets": [TARGET]}
    changes: list[tuple[str, str, Any]] = [
        ("DELETE", f"/v1/pins/shop/{name}", None),
        ("PUT", f"/v1/pins/shop/{name}/hold", {"lock": lock}),
        ("POST", "/v1/warm", {"entries": [entry], "recent": {"days": 1, "limit": 1}, "wait": 60}),
    ]
    for change in changes:
        for caller in (shop, ci):
            assert slug(caller(*change)) == (403, "forbidden")
        for operator in (ada, Asking(service, kubernetes.token("lockstep", "lockstep-warm"))):
            assert operator(*change).status_code == 200
    told = [event for event in service.events() if event.get("path") == f"/v1/pins/shop/{name}"]
    assert [event["caller"] for event in told] == ["system:serviceaccount:shop:default", "ci", "ada", WARM]


def lockstep(service: Service, *arguments: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "resolver", *arguments, "--server", service.url],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "planted-" not in done.stderr + done.stdout
    return done.stderr if code else done.stdout


def test_fetch_and_the_other_commands_show_a_token(
    service: Service, kubernetes: Cluster, index: PackageIndex, name: str, tmp_path: Path
) -> None:
    publish(index, name, "1.0")
    token = tmp_path / "token"
    asked = ("fetch", "--target", str(tmp_path / "deps"), "--requirement", name, "--workload", name)
    pod = ("--python", TARGET["python"], "--platform", TARGET["platform"], "--token-file", str(token))
    assert "token" in lockstep(service, *asked, *pod, code=77)
    for wrong in ("planted-token-of-nobody", kubernetes.token(exp=1)):
        token.write_text(wrong)
        lockstep(service, *asked, *pod, code=77)
    lockstep(service, *asked, *pod[:-2], code=77)
    token.write_text(kubernetes.token("shop") + "\n")
    lockstep(service, *asked, *pod)
    assert [*(tmp_path / "deps" / "site-packages").glob("*.dist-info")]
    lockstep(service, *asked, *pod, "--namespace", "bank", code=77)
    pins = json.loads(lockstep(service, "pins", "--json", LOCKSTEP_TOKEN_FILE=str(token)))
    assert {pin["namespace"] for pin in pins["items"]} == {"shop"}
    refresh = ("refresh", "--namespace", "shop", "--workload", name)
    lockstep(service, *refresh, code=77, LOCKSTEP_TOKEN_FILE=str(token))
    token.write_text(ADA)
    lockstep(service, *refresh, LOCKSTEP_TOKEN_FILE=str(token))


def test_a_pod_whose_key_is_new_gets_its_bundle(
    service: Service, kubernetes: Cluster, index: PackageIndex, name: str, tmp_path: Path
) -> None:
    """It may have to come again, which its client does."""
    publish(index, name, "1.0")
    kubernetes.add("rotated")
    (tmp_path / "token").write_text(kubernetes.token("shop", kid="rotated"))
    pod = ("--python", TARGET["python"], "--platform", TARGET["platform"], "--token-file", str(tmp_path / "token"))
    lockstep(service, "fetch", "--target", str(tmp_path / "deps"), "--requirement", name, *pod)


def test_static_tokens_change_while_it_runs(service: Service, tokens: Path) -> None:
    content = json.loads(tokens.read_text())
    more = {"name": "another", "role": "reader", "token": MORE}
    renewed = tokens.with_name("renewed")
    renewed.write_text(json.dumps({"tokens": [*content["tokens"], more]}))
    assert Asking(service, MORE).get("/v1/pins").status_code == 401
    renewed.replace(tokens)
    deadline = time.monotonic() + 30
    while Asking(service, MORE).get("/v1/pins").status_code != 200:
        assert time.monotonic() < deadline, "the new token is not known"
        time.sleep(0.05)
    assert Asking(service, ADA).get("/v1/pins").status_code == 200


def test_container_tools_log_in_with_a_token_for_a_password(
    service: Service, secret: dict[str, Any], tmp_path: Path
) -> None:
    skopeo = program("skopeo")
    host = service.url.removeprefix("http://")
    image = f"docker://{host}/shop/secret:cp312-glibc"
    auth = ("--authfile", str(tmp_path / "auth.json"))
    with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
        run([skopeo, "inspect", "--raw", "--tls-verify=false", *auth, image])
    argv = [skopeo, "login", "--tls-verify=false", *auth, "--username=anybody", "--password-stdin", host]
    subprocess.run(argv, input=CI, text=True, check=True, capture_output=True, timeout=60)
    told = json.loads(run([skopeo, "inspect", "--raw", "--tls-verify=false", *auth, image]))
    assert secret["bundle"]["digest"] in {manifest["digest"] for manifest in told["manifests"]}
    run([skopeo, "copy", "--all", "--src-tls-verify=false", "--src-authfile", auth[1], image, f"dir:{tmp_path}/copy"])


def test_no_token_is_told_to_anybody(service: Service, kubernetes: Cluster, ada: Asking) -> None:
    """Last in the file: by now, all kinds of tokens have been shown here, good and bad."""
    log, metrics = service.log(), service.metrics()
    signature = kubernetes.token("shop").split(".")[0]  # the head of all of them
    for text in (log, metrics, ada.get("/v1/pins").text):
        for told in ("planted-", signature, hashlib.sha256(CI.encode()).hexdigest(), "cGxhbnRlZC"):
            assert told not in text
    argv = Path(f"/proc/{service.pid}/cmdline").read_bytes()
    assert b"planted-" not in argv
