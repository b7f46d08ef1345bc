"""Logs and metrics: the one place that configures both, and the edge at which logs are redacted."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from resolver.domain.redaction import redact

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
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
        self.bundle_bytes_served = Counter(
            "lockstep_bundle_bytes_served", "Bytes of blobs sent", registry=self.registry
        )
        self.single_flight_waiters = Gauge(
            "lockstep_single_flight_waiters", "Callers that wait for a lock under way", registry=self.registry
        )
        self.index_up = Gauge("lockstep_index_up", "1: the index answers", ["index"], registry=self.registry)
        self.lease_takeovers = Counter(
            "lockstep_lease_takeovers", "Work taken over from a replica that did not end it", registry=self.registry
        )
        self.gc_deleted_bytes = Counter(
            "lockstep_gc_deleted_bytes", "Bytes of blobs that nothing needed any more", registry=self.registry
        )
        self.blob_store_bytes = Gauge("lockstep_blob_store_bytes", "Bytes in the blob store", registry=self.registry)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


def configure_logging(form: Literal["json", "text"] | None, level: str) -> None:
    """Events to stderr, one a line; the standard library's loggers and ours alike."""
    if form is None:
        form = "text" if sys.stderr.isatty() else "json"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redacted,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
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
