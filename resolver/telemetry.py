"""Logs and metrics: the one place that configures both, and the edge at which logs are redacted."""

import asyncio
import logging
import sys
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from resolver.domain.redaction import redact

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUESTS = "resolver.api.edge"
_PATHS = 1024
_LONGEST_PATH = 256
_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What the service counts (contract.md, "Metrics"). Labels never hold a package, a workload or a URL."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.resolve_requests = Counter(
            "lockstep_resolve_requests", "Answers to resolve requests", ["outcome"], registry=self.registry
        )
        self.admissions = Counter(
            "lockstep_admissions", "Pods reviewed by the webhook", ["mode", "decision"], registry=self.registry
        )
        self.observed = Counter(
            "lockstep_observed_pods", "Pods of namespaces that observe", ["result"], registry=self.registry
        )
        self.observed_saved = Counter(
            "lockstep_observed_saved_cpu_seconds", "What they would have saved, estimated", registry=self.registry
        )
        self.fallbacks = Counter(
            "lockstep_fallbacks", "Pods that started without their bundle", ["reason"], registry=self.registry
        )
        self.resolve_seconds = Histogram(
            "lockstep_resolve_seconds", "One run of the engine", ["engine"], buckets=_SECONDS, registry=self.registry
        )
        self.upstream_fetches = Counter(
            "lockstep_upstream_fetches", "Wheels asked of an index", ["result"], registry=self.registry
        )
        self.upstream_bytes = Counter("lockstep_upstream_bytes", "Bytes of wheels fetched", registry=self.registry)
        self.layer_build_seconds = Histogram(
            "lockstep_layer_build_seconds",
            "One layer, from wheel to tar+zstd",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.sdist_builds = Counter(
            "lockstep_sdist_builds",
            "Builds of source distributions, by their end",
            ["result"],
            registry=self.registry,
        )
        self.sdist_build_seconds = Histogram(
            "lockstep_sdist_build_seconds",
            "One wheel, from its source distribution: built twice, and compared",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.bundle_bytes_served = Counter(
            "lockstep_bundle_bytes_served", "Bytes of blobs sent", registry=self.registry
        )
        self.single_flight_waiters = Gauge(
            "lockstep_single_flight_waiters", "Callers that wait for a lock under way", registry=self.registry
        )
        self.blob_streams = Gauge("lockstep_blob_streams", "Blobs being sent", registry=self.registry)
        self.blob_streams_waiting = Gauge(
            "lockstep_blob_streams_waiting", "Blobs asked for that wait for their turn", registry=self.registry
        )
        self.blob_streams_refused = Counter(
            "lockstep_blob_streams_refused", "Blobs asked for that were answered `busy`", registry=self.registry
        )
        self.index_up = Gauge("lockstep_index_up", "1: the index answers", ["index"], registry=self.registry)
        self.lease_takeovers = Counter(
            "lockstep_lease_takeovers", "Work taken over from a replica that did not end it", registry=self.registry
        )
        self.gc_deleted_bytes = Counter(
            "lockstep_gc_deleted_bytes", "Bytes of blobs that nothing needed any more", registry=self.registry
        )
        self.blob_store_bytes = Gauge("lockstep_blob_store_bytes", "Bytes in the blob store", registry=self.registry)

    def tell_observed(self, result: str, cpu_seconds: float) -> None:
        """A Pod was observed, that would have saved so much."""
        self.observed.labels(result=result).inc()
        self.observed_saved.inc(cpu_seconds)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class CountedFetches:
    """Tells the metrics how fetches of wheels ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def fetched(self, result: str, bytes: int) -> None:  # noqa: A002 - the observer's own word
        """One ended with this result."""
        self._metrics.upstream_fetches.labels(result=result).inc()
        self._metrics.upstream_bytes.inc(bytes)


def configure_logging(form: Literal["json", "text"] | None, level: str) -> None:
    """Events to stderr, one a line; the standard library's loggers and ours alike."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redacted,
    ]
    renderer = _renderer(form)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # httpx logs every request with its URL, uvicorn every access: ours are told by the request log.
    for chatty in ("httpx", "httpcore", "aiosqlite", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def request_log(form: Literal["json", "text"] | None, level: str) -> Callable[..., None]:
    """What tells of a request that was answered: the same line as any other event's, for a fraction of its cost, since
    there is one for every request. Of its fields `path` alone is redacted: no other holds what a stranger wrote. The
    lines of requests that are answered at the same time go out together, at once."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    renderer = _renderer(form)
    redacted = lru_cache(_PATHS)(redact)
    silent = logging.getLevelName(level.upper()) > logging.INFO
    lines: list[str] = []

    def write() -> None:
        sys.stderr.write("".join(lines))
        lines.clear()

    def tell(*, path: str, **fields: str | float) -> None:
        if silent:
            return
        shown = redacted(path) if len(path) <= _LONGEST_PATH else redact(path)
        event = stamp(None, "info", {**fields, "path": shown, "event": "request", "level": "info", "logger": _REQUESTS})
        if not lines:
            asyncio.get_running_loop().call_soon(write)
        lines.append(f"{renderer(None, 'info', event)!s}\n")

    return tell


def _renderer(form: Literal["json", "text"] | None) -> structlog.typing.Processor:
    if form == "json" or (form is None and not sys.stderr.isatty()):
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if not name.startswith("_"):  # structlog's own: the record that a foreign event came in
            event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))
