"""Who calls, asked of real Pods: the webhook of a service that wants tokens makes them, podman runs them.

A token is as a cluster signs it, for the audience that the webhook wrote into the Pod's volume, and is where that
volume is mounted. Two things stand in for what only a cluster has: a folder with the token for the projected volume,
which podman refuses, and the service's address for its name.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_injected_pods import Functions, each_variant, seen
from tests.e2e.test_injected_pods import image as image
from tests.e2e.test_injected_pods import index as index
from tests.integration.test_fallbacks import counted
from tests.support.cluster import Cluster, cluster
from tests.support.functions import SERVER, assert_restricted, patched
from tests.support.index import PackageIndex
from tests.support.webhook import Webhook, patch_of, serving

Document = dict[str, Any]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Cluster]:
    with cluster() as started:
        yield started


@pytest.fixture(scope="module")
def webhook(
    image: str, issuer: Cluster, index: PackageIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Webhook]:
    folder = tmp_path_factory.mktemp("webhook")
    with serving(folder, index, auth="kubernetes", auth_issuer=issuer.url) as webhook:
        yield webhook


class Shop:
    """Plays Functions of the namespace `shop` as the webhook leaves them; `token` is the folder with what they show."""

    def __init__(self, functions: Functions, webhook: Webhook, token: Path) -> None:
        self._functions = functions
        self._webhook = webhook
        self._token = token

    def run(self, *, git: bool) -> tuple[str, str, str, str]:
        """What `seen` tells of the function, and the log of its init container."""
        before = self._functions.before(git)
        pod = patched(before, patch_of(self._webhook.review(before)))
        assert_restricted(pod)
        (source,) = [
            each for volume in pod["spec"]["volumes"] for each in volume.get("projected", {}).get("sources", [])
        ]
        assert source["serviceAccountToken"]["audience"] == "lockstep"
        (server,) = [each for each in pod["spec"]["initContainers"][-1]["env"] if each["name"] == "LOCKSTEP_SERVER"]
        assert server["value"] == SERVER
        server["value"] = self._webhook.service.url
        # For its log: podman removes init containers that have ended.
        pod["metadata"].setdefault("annotations", {})["io.podman.annotations.init.container.type"] = "always"
        play, container = self._functions.playing(pod, token=self._token)
        with play:
            return *seen(play, container), play.ended(f"{container.removesuffix('-function')}-lockstep")[1]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    folder = tmp_path / "tokens"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def functions(image: str, index: PackageIndex, tmp_path: Path) -> Functions:
    return Functions(image, index.url, tmp_path)


@pytest.fixture
def shop(functions: Functions, webhook: Webhook, token: Path) -> Shop:
    return Shop(functions, webhook, token)


@each_variant
def test_with_its_own_token_a_pod_has_its_bundle_and_a_pin(
    shop: Shop, webhook: Webhook, issuer: Cluster, token: Path, git: bool
) -> None:
    (token / "token").write_text(issuer.token("shop"))
    source, _, log, said = shop.run(git=git)
    assert (source, "Collecting" in log) == ("deps", False), log
    assert "ready" in said
    with webhook.service.client() as client:
        headers = {"Authorization": f"Bearer {issuer.token('shop')}"}
        (pin,) = client.get("/v1/pins", headers=headers).json()["items"]
    assert (pin["namespace"], pin["workload"], pin["revision"]) == ("shop", "orders", "6d4cf56db6")
    assert issuer.token("shop")[-40:] not in said + webhook.service.log()


def refusals(issuer: Cluster) -> dict[str, str | None]:
    return {
        "another namespace's": issuer.token("bank"),
        "expired": issuer.token("shop", exp=int(time.time()) - 60),
        "another audience's": issuer.token("shop", aud=["https://kubernetes.default.svc"]),
        "not there": None,
    }


@pytest.mark.parametrize(
    ("which", "git", "why", "told"),
    [
        ("another namespace's", False, "system:serviceaccount:bank:default does not speak for namespace 'shop'", True),
        ("expired", False, "it has expired", True),
        ("expired", True, "it has expired", True),
        ("another audience's", False, "it is for another audience", True),
        # No kubelet starts such a Pod.
        ("not there", False, "cannot read the token", False),
    ],
)
def test_with_a_token_that_is_not_taken_pip_installs_as_before(
    shop: Shop, webhook: Webhook, issuer: Cluster, token: Path, which: str, git: bool, why: str, told: bool
) -> None:
    before, events = counted(webhook.service, "not-allowed"), len(webhook.events("fallback"))
    if shown := refusals(issuer)[which]:
        (token / "token").write_text(shown)
    source, _, log, said = shop.run(git=git)
    assert (source, "Collecting" in log) == ("local", True), log
    assert why in said
    assert "fallback" in said
    # It is refused here too, and counted all the same.
    assert counted(webhook.service, "not-allowed") == before + told
    assert [why in each["detail"] for each in webhook.events("fallback")[events:]] == [True] * told
    assert not shown or shown[-40:] not in said + webhook.service.log()


def test_a_pod_that_shows_no_token_is_counted(functions: Functions, webhook: Webhook) -> None:
    """It was made while nobody was asked, or by `lockstep inject` without an audience."""
    before = counted(webhook.service, "not-allowed")
    source, _, log = functions.run(webhook.service.url)
    assert (source, "Collecting" in log) == ("local", True), log
    assert counted(webhook.service, "not-allowed") == before + 1
    assert webhook.events("fallback")[-1]["detail"] == "a token is needed"
