"""The API server of the cluster that this is in: where it is, who it is told that we are, and what it answers."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from resolver.domain.redaction import redact

_MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 10.0
_LARGEST = 4 << 20
_CAUSE = 500

Document = dict[str, Any]


class ApiFault(Exception):
    """The API server did not do what it was asked for: why, in words. `status` is that of its answer, None where it
    gave none that can be read."""

    def __init__(self, cause: str, status: int | None = None) -> None:
        super().__init__(cause)
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the same question may be answered in a while: control planes are busy, or replaced."""
        return self.status is None or self.status == 429 or self.status >= 500


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server as a Pod reaches it: its URL, and the folder with the Pod's own token and the CA to trust."""

    url: str
    folder: Path = _MOUNTED

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ApiServer | None":
        """The one of the cluster that this is in; None where this is in none."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            return None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}")

    async def client(self) -> httpx.AsyncClient:
        """A client that shows the token and trusts the CA, as both are now: they change while we run. Raises
        ApiFault."""
        try:
            token = (await asyncio.to_thread((self.folder / "token").read_text)).strip()
            trusted = await asyncio.to_thread(_trusting, self.folder / "ca.crt")
        except (OSError, UnicodeDecodeError) as failure:
            reason = getattr(failure, "strerror", None) or "it is not text"
            raise ApiFault(f"the service account in {self.folder} cannot be read: {reason}") from failure
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(verify=trusted, headers=headers, trust_env=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        params: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> Document:
        """What it answers to one request, which has so many seconds. Raises ApiFault."""
        try:
            async with asyncio.timeout(seconds):
                return await self._call(method, path, body, params, seconds)
        except TimeoutError:
            raise ApiFault(f"{self.url} gives no whole answer within {seconds:g} s") from None

    async def _call(
        self, method: str, path: str, body: Document | None, params: Mapping[str, str] | None, seconds: float
    ) -> Document:
        content = bytearray()
        try:
            async with (
                await self.client() as http,
                http.stream(method, self.url + path, json=body, params=params, timeout=seconds) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _LARGEST:
                        raise ApiFault(f"{self.url} answers with more than {_LARGEST} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            told = redact(str(failure)) or type(failure).__name__
            raise ApiFault(f"{self.url} does not answer: {told}") from failure
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            told = f"{self.url} answers with status {response.status_code}, and something that is no JSON object"
            raise ApiFault(told, response.status_code if response.is_error else None)
        if response.is_error:
            # `Status`, of the API's own conventions: its message names user, verb, resource and namespace.
            told = redact(str(answer.get("message") or answer.get("reason")))[:_CAUSE]
            raise ApiFault(told, response.status_code)
        return answer


def _trusting(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    # The CAs of many clusters lack extensions that Python asks for since 3.13 (kubernetes-client/python#2394).
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
