"""One GET from a package index: the client, the credentials, what an answer may be, and how long to insist.

TransferError
├── Passing   may pass by itself: no connection, a time-out, 429, 5xx, a body cut off; worth another attempt
├── Refused   the index means it: another status, too many redirects, a URL that is none
└── TooLarge  the body is over what is read of one
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
import structlog

from resolver.domain.errors import IndexUnavailable
from resolver.domain.redaction import redact
from resolver.domain.requests import Index

T = TypeVar("T")

_MOST_REDIRECTS = 5
_MOST_CONNECTIONS = 64

log = structlog.get_logger(__name__)


class TransferError(Exception):
    """The root of what a transfer raises; `cause` names no URL."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Passing(TransferError):
    """It may pass by itself, after `retry_after` seconds where the index says so (RFC 9110, 10.2.3)."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class Refused(TransferError):
    """The index means it; `status` is its answer, None where there was none to speak of."""

    def __init__(self, cause: str, status: int | None = None) -> None:
        super().__init__(cause)
        self.status = status


class TooLarge(TransferError):
    """The body is over the limit."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often to try, and the seconds between: doubled each time from `first_pause`, never over `longest_pause`,
    whatever an index asks for."""

    attempts: int = 4
    first_pause: float = 0.5
    longest_pause: float = 15.0

    async def run(self, attempt: Callable[[], Awaitable[T]], index: Index, about: str) -> T:
        """What the first attempt that succeeds gives. Raises the last one's Passing, or at once what is not one."""
        for failures in range(1, self.attempts):
            try:
                return await attempt()
            except Passing as error:
                log.warning("upstream.retry", index=index.name, about=about, cause=error.cause, attempt=failures)
                await asyncio.sleep(self._pause(failures, error.retry_after))
        return await attempt()

    def _pause(self, failures: int, retry_after: float | None) -> float:
        pause = self.first_pause * 2 ** (failures - 1) if retry_after is None else retry_after
        # Jitter, so that those who failed together do not come back together.
        return min(self.longest_pause, pause) * random.uniform(0.5, 1.0)  # noqa: S311 - guards no secret


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a body may come: `rate` bytes a second on the whole, after `grace` seconds."""

    grace: float = 20.0
    rate: float = 64 * 1024

    def kept(self, received: int, waited: float) -> bool:
        """Whether that many bytes are enough for that many seconds of waiting."""
        return received >= (waited - self.grace) * self.rate


RETRIES = Retries()
PACE = Pace()


def index_client(version: str, timeout: float = 30.0) -> httpx.AsyncClient:
    """A client for package indexes: the system's trust store (or SSL_CERT_FILE), the environment's proxies, no
    cookies, and a bound on every wait. Whoever makes it closes it."""
    return httpx.AsyncClient(
        # httpx alone would trust certifi's list, and not a company's own authority.
        verify=ssl.create_default_context(),
        headers={"User-Agent": f"lockstep/{version}"},
        # A session that one index's credentials opened must not serve another index of the same host.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTS,
        timeout=httpx.Timeout(timeout, pool=60),
        limits=httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=32, keepalive_expiry=30),
    )


@asynccontextmanager
async def answer(
    client: httpx.AsyncClient, url: str, index: Index, headers: dict[str, str]
) -> AsyncIterator[httpx.Response]:
    """The 200 with which the index answers, its body still to be read within the context.

    Raises:
        Passing, Refused: also where reading the body within the context fails.
    """
    try:
        async with client.stream("GET", url, headers=headers, auth=_credentials(index, url)) as response:
            status = response.status_code
            if status in {408, 425, 429} or status >= 500:
                raise Passing(f"answered {status}", _retry_after(response))
            if status != 200:
                raise Refused(f"answered {status}", status)
            yield response
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.DecodingError, httpx.InvalidURL) as error:
        raise Refused(_words(error)) from error
    except httpx.TransportError as error:
        raise Passing(_words(error)) from error


async def body(response: httpx.Response, limit: int, pace: Pace) -> AsyncGenerator[bytes, None]:
    """The body as it comes, at most `limit` bytes.

    Raises:
        Passing: it comes more slowly than the pace allows. Only the waiting for the index counts.
        TooLarge: there is more of it.
    """
    chunks = response.aiter_bytes()
    received, waited = 0, 0.0
    while True:
        since = time.monotonic()
        chunk = await anext(chunks, None)
        waited += time.monotonic() - since
        if chunk is None:
            return
        received += len(chunk)
        if received > limit:
            raise TooLarge(f"over {limit} bytes")
        if not pace.kept(received, waited):
            raise Passing(f"{received} bytes within {waited:.0f} s")
        yield chunk


@asynccontextmanager
async def told(index: Index, about: str, seconds: float) -> AsyncIterator[None]:
    """Bounds the work within, and tells how it failed in the domain's words.

    Raises:
        IndexUnavailable: for every TransferError, and when the time is up.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise IndexUnavailable(index.name, about, f"not done within {seconds:g} s") from None
    except TransferError as error:
        raise IndexUnavailable(index.name, about, error.cause) from error


def _credentials(index: Index, url: str) -> httpx.BasicAuth | None:
    """The index's credentials, for URLs of its own origin alone; httpx drops them on a redirect to another."""
    home, asked = httpx.URL(index.url), httpx.URL(url)
    if not home.userinfo or (home.scheme, home.host, home.port) != (asked.scheme, asked.host, asked.port):
        return None
    return httpx.BasicAuth(home.username, home.password)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of the header; None where it says nothing that can be read."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _words(error: Exception) -> str:
    text = redact(str(error)).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
