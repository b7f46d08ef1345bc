"""The service as a Pod has it: its service account where the kubelet mounts it, an API server to ask for keys."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from resolver.kubernetes import ApiServer
from tests.support.cluster import JWKS, Cluster, cluster, in_a_pod
from tests.support.service import Service

WARM = "system:serviceaccount:lockstep:lockstep-warm"


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("account")) as started:
        yield started


@pytest.fixture(scope="module")
def replicas(kubernetes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """Two of them, each with stores of its own."""
    assert kubernetes.folder
    within, address = in_a_pod(ApiServer(kubernetes.url, kubernetes.folder))
    folder = tmp_path_factory.mktemp("cluster")
    environment = {**address, "LOCKSTEP_AUTH": "kubernetes", "LOCKSTEP_AUTH_OPERATORS": WARM}
    with ExitStack() as stack:
        yield [
            stack.enter_context(Service(folder / name, environment=environment, within=within)) for name in ("a", "b")
        ]


def ask(service: Service, token: str, method: str = "GET", path: str = "/v1/pins") -> httpx.Response:
    with service.client() as client:
        return client.request(method, path, headers={"Authorization": f"Bearer {token}"})


def test_the_clusters_tokens_are_good_on_every_replica(kubernetes: Cluster, replicas: list[Service]) -> None:
    for replica in replicas:
        assert ask(replica, kubernetes.token("shop")).status_code == 200
        assert ask(replica, kubernetes.token("shop", aud="https://kubernetes.default.svc")).status_code == 401
        assert ask(replica, kubernetes.token("shop"), "DELETE", "/v1/pins/shop/x").status_code == 403
        warm = kubernetes.token("lockstep", "lockstep-warm")
        assert ask(replica, warm, "DELETE", "/v1/pins/shop/x").status_code == 200
    assert kubernetes.asked.count(JWKS) == len(replicas)


def test_while_the_api_server_is_down_known_keys_stay_good(kubernetes: Cluster, replicas: list[Service]) -> None:
    kubernetes.add("new")
    kubernetes.mode = "down"
    for replica in replicas:
        assert ask(replica, kubernetes.token("bank", kid="first")).status_code == 200
        unknown = ask(replica, kubernetes.token("bank", kid="new"))
        assert (unknown.status_code, unknown.json()["retryable"]) == (503, True)
        assert int(unknown.headers["Retry-After"]) >= 1
    kubernetes.mode = "good"
    for replica in replicas:
        for _ in range(10):
            found = ask(replica, kubernetes.token("bank", kid="new"))
            if found.status_code != 503:
                break
            # As a client does that is asked to come again.
            time.sleep(int(found.headers["Retry-After"]))
        assert found.status_code == 200
        assert "own-token" not in replica.log()
