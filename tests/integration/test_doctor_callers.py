"""`lockstep doctor` on who calls: keys that can be had or not, files of tokens, and what Pods would show."""

from pathlib import Path
from typing import Any

import pytest

from resolver.doctor.callers import check_callers
from resolver.doctor.findings import Finding
from resolver.settings import Settings
from tests.support.cluster import Cluster, cluster

pytestmark = pytest.mark.usefixtures("in_no_cluster")


@pytest.fixture
def in_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


async def found(**fields: Any) -> dict[str, Finding]:
    findings = {each.about: each for each in await check_callers(Settings(**fields))}
    assert all((finding.state == "well") == (not finding.way_out) for finding in findings.values())
    return findings


def of(issuer: Cluster) -> dict[str, Any]:
    return {"auth": "kubernetes", "auth_issuer": issuer.url}


async def test_where_nobody_is_asked() -> None:
    assert await found() == {}
    assert (await found(insecure_no_auth=True))["callers"].state == "note"


async def test_keys_that_can_be_had() -> None:
    with cluster() as issuer:
        keys = (await found(**of(issuer)))["signing keys"]
    assert (keys.state, keys.told) == ("well", f"1 of {issuer.url}")


@pytest.mark.parametrize("mode", ["down", "refuses", "garbage", "no-keys"])
async def test_keys_that_cannot(mode: str) -> None:
    with cluster() as issuer:
        issuer.mode = mode
        keys = (await found(**of(issuer)))["signing keys"]
    assert keys.state == "wrong"
    assert "auth_issuer" in keys.way_out


async def test_keys_of_the_cluster_whose_api_server_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "in no cluster" in (await found(auth="kubernetes"))["signing keys"].told
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    keys = (await found(auth="kubernetes"))["signing keys"]
    assert keys.state == "wrong"
    assert "networkPolicy.apiServer" in keys.way_out


async def test_a_file_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text("tokens: [{name: ada, role: operator, token: the-token-of-ada-0123}]")
    static = (await found(auth="static", auth_tokens=file))["static"]
    assert (static.state, static.told) == ("well", "1 tokens, 1 of them operators'")
    file.write_text("tokens: [{name: ada, role: queen, token: the-token-of-ada-0123}]")
    static = (await found(auth="static", auth_tokens=file))["static"]
    assert static.state == "wrong"
    assert "role" in static.told
    assert "0123" not in repr(static)
    assert (await found(auth="static"))["settings"].state == "wrong"


async def test_what_the_webhook_has_pods_show(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text("tokens: []")
    webhook = {"webhook_listen": "127.0.0.1:8443"}
    with cluster() as issuer:
        assert "Pods" not in await found(**of(issuer))
        assert (await found(**of(issuer), **webhook))["Pods"].state == "well"
        other = (await found(**of(issuer), **webhook, webhook_audience="elsewhere"))["Pods"]
        assert other.state == "wrong"
        assert "elsewhere" in other.told
    none = (await found(auth="static", auth_tokens=file, **webhook))["Pods"]
    assert none.state == "wrong"
    assert "no token" in none.told
