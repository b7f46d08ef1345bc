"""Whether an index answers at all: one small question, a short time."""

import asyncio

import httpx

from resolver.domain.redaction import redact
from resolver.domain.requests import Index

# Any project does: that an index has none of this name is an answer too.
_PROJECT = "pip"
_READ = 16 * 1024


class HttpProbe:
    """IndexProbe over HTTP. An index that has not begun to answer properly after `seconds` counts as down."""

    def __init__(self, client: httpx.AsyncClient, *, seconds: float = 3.0) -> None:
        self._client = client
        self._seconds = seconds

    async def fault(self, index: Index) -> str | None:
        """See IndexProbe."""
        url = httpx.URL(index.public_url.rstrip("/") + f"/{_PROJECT}/")
        own = httpx.URL(index.url)
        credentials = httpx.BasicAuth(own.username, own.password) if own.username else None
        try:
            async with asyncio.timeout(self._seconds):
                async with self._client.stream("GET", url, auth=credentials) as response:
                    if response.status_code >= 500:
                        return f"it answers with status {response.status_code}"
                    received = 0
                    async for chunk in response.aiter_raw():
                        received += len(chunk)
                        if received >= _READ:
                            break
        except TimeoutError:
            return f"no whole answer within {self._seconds:g} s"
        except httpx.HTTPError as error:
            return redact(f"{type(error).__name__}: {error}")
        return None
