"""What is set, and who knows callers then."""

from pathlib import Path
from typing import Any

import pytest

from resolver import auth
from resolver.domain.errors import Busy, Unauthenticated
from resolver.settings import Settings
from tests.support.cluster import cluster

TOKEN = "the-token-of-ada-0123"


def settings(**fields: Any) -> Settings:
    return Settings(**fields)


@pytest.fixture(autouse=True)
def in_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text(f"tokens: [{{name: ada, role: operator, token: {TOKEN}}}]")
    return path


async def test_with_no_settings_nobody_is_asked() -> None:
    async with auth.opened(settings()) as door:
        assert (door.identity, door.parts) == (None, {})


async def test_tokens_from_a_file_alone(file: Path) -> None:
    async with auth.opened(settings(auth="static", auth_tokens=file)) as door:
        assert door.identity is not None
        assert (await door.identity.caller(TOKEN)).name == "ada"
        with pytest.raises(Unauthenticated):
            await door.identity.caller("e30.e30.e30")
        assert door.parts == {}


async def test_tokens_from_a_file_and_the_clusters(file: Path) -> None:
    with cluster() as kubernetes:
        both = settings(auth="kubernetes, static", auth_tokens=file, auth_issuer=kubernetes.issuer)
        async with auth.opened(both) as door:
            assert door.identity is not None
            assert (await door.identity.caller(TOKEN)).operator
            assert (await door.identity.caller(kubernetes.token("shop"))).home == "shop"
            await door.parts["signing keys"]()


async def test_it_starts_while_the_keys_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here: the API server's address is there, and no service account is mounted."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    with cluster() as kubernetes:
        async with auth.opened(settings(auth=["kubernetes"])) as door:
            assert door.identity is not None
            with pytest.raises(Busy):
                await door.identity.caller(kubernetes.token())
            with pytest.raises(Busy, match="cannot be read"):
                await door.parts["signing keys"]()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"auth": "static"}, "auth_tokens"),
        ({"auth_tokens": "tokens.yaml"}, "auth_tokens"),
        ({"auth": "static", "auth_tokens": "/nowhere/tokens.yaml"}, "cannot be read"),
        ({"auth": "kubernetes"}, "auth_issuer"),
        ({"auth": "kubernetes", "auth_jwks_url": "https://issuer.example.com/keys"}, "auth_issuer"),
        ({"auth": "kubernetes", "auth_issuer": "http://issuer.example.com"}, "https"),
        ({"auth_issuer": "https://issuer.example.com"}, "auth kubernetes"),
        ({"auth_operators": "system:serviceaccount:a:b"}, "auth kubernetes"),
    ],
)
async def test_settings_that_make_no_sense_together(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        async with auth.opened(settings(**fields)):
            pass
