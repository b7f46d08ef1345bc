"""The webhook's listener: TLS, in the service's own process, with a certificate that may change while it runs."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import structlog
import uvicorn
from starlette.types import ASGIApp

from resolver.auth import audience_of_pods
from resolver.cli.registry import Place, Registry
from resolver.cli.registry_login import find_login
from resolver.client.build import bootstrap
from resolver.client.errors import BadUsage
from resolver.client.retries import Patience
from resolver.domain.injection import Delivery
from resolver.service.admission import Admission
from resolver.service.lock_book import LockBook
from resolver.service.mounting import Mounting, Published
from resolver.service.observing import Observing
from resolver.service.requests import Requests
from resolver.service.resolve import Resolving
from resolver.service.warm import Warming
from resolver.settings import Settings
from resolver.telemetry import Metrics
from storage.content import Digest

_LOOK_EVERY = 2.0
_END_SECONDS = 5
_ASK_SECONDS = 5.0  # for all that it takes to ask a registry, tokens included

log = structlog.get_logger(__name__)


def delivery(settings: Settings, client: str, bootstrap: str) -> Delivery:
    """What Pods are told, as it is set; `client` is the SHA-256 of the client that is served.

    Raises:
        ValueError: a setting that the webhook needs is missing, or is none.
    """
    missing = [name for name in ("webhook_cert", "webhook_key", "webhook_server") if not getattr(settings, name)]
    if missing:
        raise ValueError(f"webhook_listen: needs {', '.join(missing)} too")
    try:
        return Delivery(
            server=(settings.webhook_server or "").rstrip("/"),
            client=client,
            bootstrap=bootstrap,
            client_image=settings.webhook_client_image,
            cpu=settings.webhook_cpu,
            audience=audience_of_pods(settings),
        )
    except ValueError as failure:
        raise ValueError(f"webhook_{failure}") from None


def admission(
    settings: Settings,
    client: bytes,
    requests: Requests,
    warming: Warming,
    resolving: Resolving,
    book: LockBook,
    metrics: Metrics,
) -> Admission:
    """The use case behind the webhook, as it is set. Raises ValueError as `delivery`."""
    return Admission(
        delivery(settings, hashlib.sha256(client).hexdigest(), bootstrap()),
        requests,
        warming,
        resolving.unpacked_size,
        Observing(warming, book, metrics.tell_observed),
        platforms=settings.webhook_platforms,
        tell=lambda mode, decision: metrics.admissions.labels(mode, decision).inc(),
        mounting=_mounting(settings, resolving),
    )


def _mounting(settings: Settings, resolving: Resolving) -> Mounting | None:
    if settings.webhook_image_registry is None:
        return None
    scheme, separator, rest = settings.webhook_image_registry.rpartition("://")
    place, plain_http = rest.rstrip("/"), separator and scheme == "http"
    try:
        Place.parse(f"{place}/namespace/workload")
        if separator and not plain_http:
            raise BadUsage("a registry has no scheme, but for http:// in front of one without TLS")
    except BadUsage as failure:
        raise ValueError(f"webhook_image_registry: {failure}") from None
    http = httpx.Client(verify=ssl.create_default_context())

    def ask(repository: str, digest: Digest) -> bool:
        at = Place.parse(f"{place}/{repository}")
        login = find_login(at.host, at.repository)
        return Registry(http, at, login, Patience(_ASK_SECONDS), plain_http=bool(plain_http)).has_manifest(digest)

    return Mounting(place, resolving, Published(ask))


@asynccontextmanager
async def listening(app: ASGIApp, settings: Settings) -> AsyncIterator[None]:
    """Answers on `webhook_listen` while the context is open.

    Raises:
        ValueError: certificate and key cannot be read, or are no pair; the address cannot be listened on.
    """
    host, _, port = (settings.webhook_listen or "").rpartition(":")
    cert, key = settings.webhook_cert or Path(), settings.webhook_key or Path()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_END_SECONDS,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except OSError as failure:  # ssl.SSLError is one
        raise ValueError(f"webhook_cert, webhook_key: {failure}") from failure
    config.load()
    config.ssl = context  # the one that is renewed
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as failure:
        raise ValueError(f"webhook_listen: {failure}") from failure
    log.info("webhook.listening", host=bound.getsockname()[0], port=bound.getsockname()[1])
    server = _Server(config)
    serving = asyncio.create_task(server.serve([bound]))
    renewing = asyncio.create_task(_renew(context, cert, key))
    try:
        yield
    finally:
        renewing.cancel()
        server.should_exit = True
        await asyncio.gather(serving, renewing, return_exceptions=True)


class _Server(uvicorn.Server):
    """Ends with the service, whose signals are not its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _renew(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Connections made after the files change get the new certificate. Looks again and again: what a kubelet swaps is a
    link two folders up."""
    seen = _state(cert, key)
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = _state(cert, key)
        if now == seen or now is None:
            continue
        seen = now
        try:
            # Where they are no pair (as yet), the one in use stays whole.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
            context.load_cert_chain(cert, key)
        except OSError as failure:
            log.error("webhook.certificate-unusable", cause=str(failure))  # noqa: TRY400 - no fault in here
        else:
            log.info("webhook.certificate-renewed")


def _state(cert: Path, key: Path) -> tuple[object, ...] | None:
    with contextlib.suppress(OSError):
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in (cert.stat(), key.stat()))
    return None
