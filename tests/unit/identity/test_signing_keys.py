"""Keys that change, and an API server that is down, slow, or says something else."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.domain.errors import Busy
from resolver.identity.discovery import ClusterKeys, IssuerKeys
from resolver.identity.signing_keys import KeysUnavailable, SigningKeys
from resolver.kubernetes import ApiServer
from tests.support.cluster import DISCOVERY, JWKS, Cluster, cluster

PAUSE, FRESH = 5.0, 300.0


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as started:
        yield started


class Replica:
    """One replica's keys, with a clock to turn."""

    def __init__(self, kubernetes: Cluster, seconds: float = 5.0) -> None:
        assert kubernetes.folder
        self.time = 1000.0
        self.source = ClusterKeys(ApiServer(kubernetes.url, kubernetes.folder), seconds=seconds)
        self.keys = SigningKeys(self.source.fetch, fresh=FRESH, pause=PAUSE, clock=lambda: self.time)

    async def knows(self, kid: str) -> bool:
        return await self.keys.find(kid) is not None

    async def settled(self) -> None:
        while len(self.keys._asking):
            await asyncio.sleep(0.005)


@pytest.fixture
async def replica(kubernetes: Cluster) -> AsyncIterator[Replica]:
    replica = Replica(kubernetes)
    yield replica
    await replica.keys.close()


async def test_they_are_asked_for_once_by_however_many(replica: Replica, kubernetes: Cluster) -> None:
    assert all(await asyncio.gather(*(replica.knows("first") for _ in range(50))))
    assert kubernetes.asked == [DISCOVERY, JWKS]
    found = await replica.keys.find("first")
    assert found is not None
    assert found[0] == kubernetes.issuer


async def test_a_new_key_is_found_by_every_replica(replica: Replica, kubernetes: Cluster) -> None:
    other = Replica(kubernetes)
    assert await replica.knows("first")
    assert await other.knows("first")
    kubernetes.add("new")
    for each in (replica, other):
        each.time += PAUSE
        assert await each.knows("new")
        assert await each.knows("first")
    await other.keys.close()


async def test_strangers_have_the_api_server_asked_now_and_then_at_most(replica: Replica, kubernetes: Cluster) -> None:
    assert await replica.knows("first")
    for number in range(100):
        replica.time += 0.01
        # It was not asked since: whether there is such a key by now, nobody can tell.
        with pytest.raises(Busy):
            await replica.knows(f"stranger{number}")
    assert kubernetes.asked.count(JWKS) == 1
    replica.time += PAUSE
    assert not await replica.knows("stranger")
    assert kubernetes.asked.count(JWKS) == 2
    assert await replica.knows("first")


@pytest.mark.parametrize("mode", ["down", "refuses", "garbage", "list", "no-keys", "huge", "slow"])
async def test_known_keys_are_served_whatever_the_api_server_does(kubernetes: Cluster, mode: str) -> None:
    replica = Replica(kubernetes, seconds=0.3)
    assert await replica.knows("first")
    kubernetes.mode = mode
    for _ in range(3):
        replica.time += FRESH
        assert await asyncio.wait_for(replica.knows("first"), 5)
        await replica.settled()
    assert kubernetes.asked.count(DISCOVERY) == 4
    with pytest.raises(Busy):
        await replica.keys.ping()
    # One that is unknown may be new: whoever comes with it is asked to come again, not turned away.
    kubernetes.add("new")
    replica.time += PAUSE
    with pytest.raises(Busy) as caught:
        await asyncio.wait_for(replica.knows("new"), 5)
    assert 1 <= caught.value.retry_after <= PAUSE
    kubernetes.mode = "good"
    kubernetes.resume.set()
    replica.time += PAUSE
    assert await replica.knows("new")
    await replica.keys.ping()
    await replica.keys.close()


@pytest.mark.parametrize("mode", ["down", "garbage", "no-keys", "slow"])
async def test_without_any_key_nobody_can_tell(kubernetes: Cluster, mode: str) -> None:
    kubernetes.mode = mode
    replica = Replica(kubernetes, seconds=0.3)
    for _ in range(2):
        with pytest.raises(Busy):
            await asyncio.wait_for(replica.knows("first"), 5)
    assert kubernetes.asked.count(DISCOVERY) == 1
    kubernetes.mode = "good"
    kubernetes.resume.set()
    replica.time += PAUSE
    assert await replica.knows("first")
    await replica.keys.close()


async def test_a_server_that_is_gone_or_that_nobody_vouches_for(tmp_path: Path) -> None:
    with cluster(tmp_path) as gone:
        server = ApiServer(gone.url, tmp_path)
    with pytest.raises(KeysUnavailable, match="ConnectError"):
        await ClusterKeys(server).fetch()
    (tmp_path / "other").mkdir()
    with cluster(tmp_path / "other") as other:
        with pytest.raises(KeysUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await ClusterKeys(ApiServer(other.url, tmp_path)).fetch()
        assert other.asked == []
        with pytest.raises(KeysUnavailable, match="cannot be read"):
            await ClusterKeys(ApiServer(other.url, tmp_path / "nowhere")).fetch()


async def test_the_cas_of_clusters_need_no_more_than_they_have(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lack what strict verification asks for, which is Python's default since 3.13."""
    default, made = ssl.create_default_context, []

    def strict(**named: Any) -> ssl.SSLContext:
        context = default(**named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        made.append(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    assert list((await replica.source.fetch()).keys) == ["first"]
    [context] = made
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


async def test_the_pods_own_token_is_read_each_time(replica: Replica, kubernetes: Cluster, tmp_path: Path) -> None:
    good = (tmp_path / "token").read_text()
    (tmp_path / "token").write_text("old")
    with pytest.raises(KeysUnavailable, match="403"):
        await replica.source.fetch()
    (tmp_path / "token").write_text(good)
    assert (await replica.source.fetch()).keys.keys() == {"first"}


def test_the_cluster_that_this_is_in() -> None:
    assert ApiServer.from_environment({}) is None
    for host, url in (("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")):
        found = ApiServer.from_environment({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"})
        assert found is not None
        assert found.url == url


async def test_an_issuer_that_is_set() -> None:
    with cluster() as issuer:
        for jwks_url in (None, f"{issuer.url}/keys"):
            found = await IssuerKeys(issuer.issuer, jwks_url).fetch()
            assert (found.issuer, list(found.keys)) == (issuer.issuer, ["first"])
        assert issuer.asked == [DISCOVERY, JWKS, "/keys"]
        with pytest.raises(KeysUnavailable, match="another issuer"):
            await IssuerKeys(issuer.issuer + "/", None).fetch()
        issuer.mode = "list"
        with pytest.raises(KeysUnavailable, match="no JSON object"):
            await IssuerKeys(issuer.issuer, None).fetch()


@pytest.mark.parametrize("url", ["http://packages.example.com", "ftp://127.0.0.1", "packages.example.com", ""])
def test_keys_come_over_tls(url: str) -> None:
    with pytest.raises(ValueError, match="auth_issuer"):
        IssuerKeys(url, None)
    with pytest.raises(ValueError, match="auth_"):
        IssuerKeys("https://issuer.example.com", url or "http://packages.example.com")
