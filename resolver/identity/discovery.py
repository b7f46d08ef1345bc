"""Where the keys are: at the cluster's API server, or where the issuer that is set says (OpenID Connect Discovery)."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from resolver.domain.redaction import redact
from resolver.identity.signing_keys import KeySet, KeysUnavailable
from resolver.kubernetes import ApiFault, ApiServer

_DISCOVERY = "/.well-known/openid-configuration"
_JWKS = "/openid/v1/jwks"
_SECONDS = 5.0
_LARGEST = 1 << 20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ClusterKeys:
    """The issuer of the cluster's service account tokens, and its keys, as the API server has them. Its discovery
    document names an address that Pods may not reach; the keys are at the API server itself all the same."""

    def __init__(self, server: ApiServer, *, seconds: float = _SECONDS) -> None:
        self._server = server
        self._seconds = seconds

    async def fetch(self) -> KeySet:
        """The keys as they are now. Raises KeysUnavailable."""
        try:
            client = await self._server.client()
        except ApiFault as fault:
            raise KeysUnavailable(str(fault)) from fault
        async with client as http:
            about = await _document(http, self._server.url + _DISCOVERY, self._seconds)
            return KeySet.parse(_issuer(about), await _document(http, self._server.url + _JWKS, self._seconds))


class IssuerKeys:
    """The keys of an issuer that is set, at `jwks_url`, or where its discovery document says."""

    def __init__(self, issuer: str, jwks_url: str | None, *, seconds: float = _SECONDS) -> None:
        """Raises ValueError for URLs over which nobody could be trusted."""
        self._issuer = issuer
        self._jwks_url = _trusted(jwks_url or issuer, "auth_jwks_url" if jwks_url else "auth_issuer")
        self._discovered = jwks_url is None
        self._seconds = seconds

    async def fetch(self) -> KeySet:
        """The keys as they are now. Raises KeysUnavailable."""
        trusted = await asyncio.to_thread(ssl.create_default_context)
        async with httpx.AsyncClient(verify=trusted) as http:
            url = self._jwks_url
            if self._discovered:
                about = await _document(http, self._issuer.rstrip("/") + _DISCOVERY, self._seconds)
                if _issuer(about) != self._issuer:  # OpenID Connect Discovery 1.0, 4.3
                    raise KeysUnavailable("its discovery document is of another issuer")
                try:
                    url = _trusted(str(about.get("jwks_uri")), "jwks_uri")
                except ValueError as failure:
                    raise KeysUnavailable(str(failure)) from failure
            return KeySet.parse(self._issuer, await _document(http, url, self._seconds))


def _issuer(about: Mapping[str, Any]) -> str:
    found = about.get("issuer")
    if not isinstance(found, str) or not found:
        raise KeysUnavailable("its discovery document names no issuer")
    return found


def _trusted(url: str, name: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"{name}: not an https:// URL")
    return url


async def _document(http: httpx.AsyncClient, url: str, seconds: float) -> Mapping[str, Any]:
    asked = redact(url)
    try:
        async with asyncio.timeout(seconds), http.stream("GET", url, timeout=seconds) as response:
            if response.status_code != 200:
                raise KeysUnavailable(f"{asked} answers with status {response.status_code}")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST:
                    raise KeysUnavailable(f"{asked} answers with more than {_LARGEST} bytes")
        document = json.loads(content)
    except TimeoutError:
        raise KeysUnavailable(f"{asked} gives no whole answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        raise KeysUnavailable(f"{asked}: {type(failure).__name__}: {redact(str(failure))}") from failure
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KeysUnavailable(f"{asked} answers with something that is no JSON object")
    return document
