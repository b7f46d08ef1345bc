"""Service account tokens: which are good, which are not and why, and how often that costs a signature."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from resolver.domain.errors import Unauthenticated
from resolver.domain.identity import Caller
from resolver.identity.discovery import ClusterKeys
from resolver.identity.identifying import Identifying
from resolver.identity.service_accounts import ServiceAccounts
from resolver.identity.signing_keys import SigningKeys
from resolver.kubernetes import ApiServer
from tests.support.cluster import JWKS, Cluster, cluster, sign

WARM = "system:serviceaccount:lockstep:lockstep-warm"


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("account")) as started:
        started.add("second", "EC")
        yield started


class Bench:
    """The service's side, its clocks to be turned."""

    def __init__(self, kubernetes: Cluster) -> None:
        self.kubernetes = kubernetes
        self.later = 0.0
        assert kubernetes.folder
        source = ClusterKeys(ApiServer(kubernetes.url, kubernetes.folder))
        self.keys = SigningKeys(source.fetch, clock=lambda: time.monotonic() + self.later)
        self.accounts = ServiceAccounts(
            self.keys, audience="lockstep", operators=[WARM], clock=lambda: time.time() + self.later
        )
        self.identity = Identifying(None, self.accounts)

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.identity.caller(token)
        assert token not in str(caught.value)
        return str(caught.value)


@pytest.fixture
async def bench(kubernetes: Cluster) -> AsyncIterator[Bench]:
    bench = Bench(kubernetes)
    yield bench
    await bench.keys.close()


@pytest.mark.parametrize("kid", ["first", "second"])
async def test_a_pod_speaks_for_its_namespace_alone(bench: Bench, kid: str) -> None:
    caller = await bench.identity.caller(bench.kubernetes.token("shop", "checkout", kid=kid))
    assert caller == Caller("system:serviceaccount:shop:checkout", False, frozenset(["shop"]))
    assert caller.home == "shop"


async def test_a_service_account_that_is_named_is_an_operator(bench: Bench) -> None:
    assert await bench.identity.caller(bench.kubernetes.token("lockstep", "lockstep-warm")) == Caller(WARM, True, None)
    other = await bench.identity.caller(bench.kubernetes.token("lockstep", "lockstep"))
    assert not other.operator


def forged(claims: dict[str, Any], header: dict[str, Any], key: bytes = b"") -> str:
    """A token with whatever header, signed with a secret, or not at all."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims)]
    signature = hmac.new(key, b".".join(parts), hashlib.sha256).digest() if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


NOW = int(time.time())
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": NOW - 60}, "expired"),
    "not yet valid": ({"nbf": NOW + 86_400}, "not valid yet"),
    "made in the future": ({"iat": NOW + 86_400}, "not valid yet"),
    "for the API server": ({"aud": ["https://kubernetes.default.svc"]}, "another audience"),
    "for nobody": ({"aud": None}, "lacks a claim"),
    "of another issuer": ({"iss": "https://elsewhere.example.com"}, "another issuer"),
    "of no issuer": ({"iss": None}, "lacks a claim"),
    "for ever": ({"exp": None}, "lacks a claim"),
    "of nobody": ({"sub": None}, "lacks a claim"),
    "of no namespace": ({"kubernetes.io": None}, "no namespace"),
    "of an odd namespace": ({"kubernetes.io": {"namespace": ["shop"]}}, "no namespace"),
    "of an empty namespace": ({"kubernetes.io": {"namespace": ""}}, "no namespace"),
    "of two namespaces": ({"sub": "system:serviceaccount:bank:default"}, "no namespace"),
    "of no service account": ({"sub": "somebody"}, "no namespace"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_token_that_is_not_good(bench: Bench, wrong: str) -> None:
    changed, told = WRONG[wrong]
    assert told in await bench.refused(bench.kubernetes.token(**changed))


async def test_no_token_is_its_own_judge(bench: Bench) -> None:
    """alg `none`, or HS256 with the public key for a secret (RFC 8725, 2.1), and what is no token at all."""
    claims, key = bench.kubernetes.claims(), bench.kubernetes.keys["first"]
    await bench.identity.caller(bench.kubernetes.token(kid="first"))
    assert "not signed" in await bench.refused(forged(claims, {"alg": "none", "typ": "JWT", "kid": "first"}))
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        public = key.public_key().public_bytes(serialization.Encoding.PEM, form)
        for header in ({"alg": "HS256", "kid": "first"}, {"alg": "HS256"}, {"alg": "RS256", "kid": "first"}):
            assert "token is not" in await bench.refused(forged(claims, header, public))
    assert "not signed" in await bench.refused(sign(claims, key, None))  # names no key
    for nonsense in ("x.y", "a.b.c", "....", "é" * 20, "e30.e30.e30", "x" * (16 << 10)):
        await bench.refused(nonsense)
    assert "characters" in await bench.refused("x" * (17 << 10))


async def test_a_signature_is_of_the_key_that_is_named(bench: Bench, kubernetes: Cluster) -> None:
    await bench.identity.caller(kubernetes.token())
    claims = kubernetes.claims()
    stranger = rsa.generate_private_key(65537, 2048)
    assert "signature" in await bench.refused(sign(claims, stranger, "first"))
    # A good token with another's claims.
    head, _, tail = kubernetes.token("shop").split(".")
    assert "signature" in await bench.refused(".".join([head, kubernetes.token("bank").split(".")[1], tail]))
    # Of the right kind, and with the other algorithm in its header.
    wrong = jwt.encode(claims, kubernetes.keys["second"], "ES256", headers={"kid": "first"})
    await bench.refused(wrong)


async def test_what_was_found_good_is_good_until_it_expires(
    bench: Bench, kubernetes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    decode = jwt.PyJWT.decode

    def counted(self: jwt.PyJWT, token: str, *arguments: Any, **named: Any) -> Any:
        checked.append(token)
        return decode(self, token, *arguments, **named)

    monkeypatch.setattr(jwt.PyJWT, "decode", counted)
    token = kubernetes.token(exp=int(time.time()) + 120)
    first = await bench.identity.caller(token)
    for _ in range(50):
        assert await bench.identity.caller(token) == first
    assert len(checked) == 1
    bench.later = 121
    await bench.identity.caller(token)
    assert len(checked) == 2, "once its time is up, it is checked again"


async def test_a_key_that_is_gone_is_not_remembered_either(tmp_path: Path) -> None:
    with cluster(tmp_path) as other:
        other.add("leaked")
        theirs = Bench(other)
        token = other.token(kid="leaked")
        await theirs.identity.caller(token)
        del other.keys["leaked"]
        theirs.later = 400
        await theirs.keys.find("first")  # they are asked for beside
        while theirs.keys.generation < 2:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)  # that question has ended; who comes now asks another
        theirs.later += 6
        assert "no key" in await theirs.refused(token)
        assert other.asked.count(JWKS) == 3
        await theirs.keys.close()
