"""The composition root: the only module that names concrete classes. Read it to see what the service is made of."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from resolver.api.app import build_app
from resolver.api.context import Services
from resolver.bundles.builder import ProcessLayerBuilder
from resolver.client.build import archive
from resolver.domain.ports import Locker
from resolver.domain.requests import Index
from resolver.domain.targets import TargetEnvironment
from resolver.engines.interpreters import Interpreter, discover
from resolver.engines.pip import PipLocker, default_index_url
from resolver.engines.uv import UvLocker
from resolver.scratch import scratch_folder
from resolver.service.contents import Contents
from resolver.service.inspect import Inspecting
from resolver.service.lock_book import LockBook
from resolver.service.locking import Locking
from resolver.service.materialise import Materialising
from resolver.service.operations import Operations
from resolver.service.policies import Bounded, Measured, MeasuredLayers
from resolver.service.requests import Requests
from resolver.service.resolve import Resolving
from resolver.service.workloads import Workloads
from resolver.settings import Settings
from resolver.telemetry import Metrics, configure_logging
from resolver.upstream.pages import SimplePages
from resolver.upstream.transfer import index_client
from resolver.upstream.wheels import WheelDownloads
from storage.blobs.filesystem import FilesystemBlobStore
from storage.errors import StorageError
from storage.metadata.store import SqlMetadataStore
from storage.protocols import BlobJanitor, MetadataStore

log = structlog.get_logger(__name__)

_GAUGES_EVERY = 60.0


def serve(settings: Settings) -> int:
    """Run the service until it is told to stop. Returns the exit code."""
    configure_logging(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    host, _, port = settings.listen.rpartition(":")
    async with compose(settings) as (app, operations):
        server = _Server(
            uvicorn.Config(
                app,
                host=host.strip("[]"),
                port=int(port),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(settings.shutdown_grace),
                lifespan="off",
            ),
            operations,
            settings.shutdown_grace,
        )
        await server.serve()
    log.info("service.stopped")
    return 0


class _Server(uvicorn.Server):
    """Stops taking new work as soon as it is told to stop, not only once the last connection is closed."""

    def __init__(self, config: uvicorn.Config, operations: Operations, grace: float) -> None:
        super().__init__(config)
        self._operations = operations
        self._grace = grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in (listening for server in self.servers for listening in server.sockets):
            host, port, *_ = each.getsockname()
            log.info("service.listening", host=host, port=port, version=version("lockstep"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._operations.close(self._grace))
        await super().shutdown(sockets)
        await draining

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal once more at the end, which would end the process before its parts are closed.
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[tuple[ASGIApp, Operations]]:
    """The application on its stores, engine and indexes; all of it is closed at the end, in reverse."""
    async with AsyncExitStack() as stack:
        for platform in settings.platforms:
            TargetEnvironment.from_platform("3.12", platform)  # refuses what no lock could cover
        folder = settings.data_dir.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_folder(folder / "scratch-v1"))
        metrics = Metrics()
        indexes = configured_indexes(settings)

        # The stores: bytes by digest, references by key.
        blobs = await FilesystemBlobStore.open(folder / "blobs")
        metadata = await SqlMetadataStore.open(f"sqlite+aiosqlite:///{folder / 'lockstep.db'}")
        stack.push_async_callback(metadata.close)

        # The indexes: one client for pages and wheels.
        http = await stack.enter_async_context(index_client(version("lockstep"), settings.index_timeout))
        pages = SimplePages(http)
        stack.push_async_callback(pages.close)
        wheels = WheelDownloads(
            http, pages, blobs, parallel=settings.parallel_downloads, observer=_CountedFetches(metrics)
        )
        stack.push_async_callback(wheels.close)

        # The engine. Bounded inside measured: what is measured is what a caller waits for, its turn included.
        # Single flight stands around both, in Resolving: those who join a flight take no place in the queue.
        interpreters = await discover(os.environ.get("PATH", os.defpath), settings.interpreters)
        locker: Locker = Bounded(
            _engine(settings, folder, interpreters), parallel=settings.parallel_resolves, queue=settings.queue
        )
        locker = Measured(locker, lambda engine, seconds: metrics.resolve_seconds.labels(engine).observe(seconds))

        # The layers, built in worker processes.
        builder = ProcessLayerBuilder(interpreters, workers=settings.parallel_builds, timeout=settings.build_timeout)
        stack.push_async_callback(builder.close)

        book = LockBook(metadata.locks)
        locking = Locking(
            locker,
            pages,
            wheels,
            passed_over=settings.passed_over,
            target_conflict=settings.target_conflict,
        )
        materialising = Materialising(
            blobs,
            metadata.artifacts,
            wheels,
            MeasuredLayers(builder, metrics.layer_build_seconds.observe),
            {index.name: index for index in indexes},
            scratch,
            shared_paths=settings.shared_paths,
        )
        stack.push_async_callback(materialising.close)
        resolving = Resolving(
            metadata,
            book,
            locking,
            materialising,
            platforms=settings.platforms,
            fresh_for=timedelta(seconds=settings.fresh_for),
            refusals_for=timedelta(seconds=settings.refusals_for),
        )
        stack.push_async_callback(resolving.close)
        metrics.single_flight_waiters.set_function(lambda: resolving.waiting)
        operations = Operations(metadata.operations, limit=settings.queue)
        stack.push_async_callback(operations.close, 0.0)
        gauges = asyncio.create_task(_measure_store(blobs, metrics))
        stack.callback(gauges.cancel)

        yield (
            build_app(
                Services(
                    requests=Requests(indexes),
                    resolving=resolving,
                    operations=operations,
                    inspecting=Inspecting(metadata.locks, book, metadata.pins),
                    workloads=Workloads(metadata.workloads, metadata.locks),
                    contents=Contents(blobs, metadata.artifacts),
                    metrics=metrics,
                    degraded=lambda: _degraded(metadata),
                    client=archive(),
                    max_body=settings.max_body,
                    max_wait=settings.max_wait,
                )
            ),
            operations,
        )


def configured_indexes(settings: Settings) -> tuple[Index, ...]:
    """The indexes in order of priority; the engines' own default, named `pypi`, where none is configured."""
    if settings.indexes:
        return tuple(
            Index(
                index.name,
                index.url.get_secret_value(),
                frozenset(index.namespaces) if index.namespaces is not None else None,
            )
            for index in settings.indexes
        )
    url = settings.index_url.get_secret_value() if settings.index_url else default_index_url()
    return (Index("pypi", url),)


def _engine(settings: Settings, folder: Path, interpreters: Mapping[str, Interpreter]) -> Locker:
    timeout, memory, http_timeout = settings.engine_timeout, settings.engine_memory, round(settings.index_timeout)
    if settings.engine == "uv":
        return UvLocker(folder / "uv-cache", timeout=timeout, memory=memory, http_timeout=http_timeout)
    paths = {python: interpreter.path for python, interpreter in interpreters.items()}
    return PipLocker(paths, folder / "pip-cache", timeout=timeout, memory=memory, http_timeout=http_timeout)


class _CountedFetches:
    """Tells the metrics how fetches of wheels ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def fetched(self, result: str, bytes: int) -> None:  # noqa: A002 - the observer's own word
        self._metrics.upstream_fetches.labels(result=result).inc()
        self._metrics.upstream_bytes.inc(bytes)


async def _degraded(metadata: MetadataStore) -> list[str]:
    try:
        async with asyncio.timeout(2):
            await metadata.ping()
    except (StorageError, TimeoutError) as failure:
        log.warning("readiness.degraded", part="database", cause=str(failure))
        return ["database"]
    return []


async def _measure_store(blobs: BlobJanitor, metrics: Metrics) -> None:
    while True:
        try:
            metrics.blob_store_bytes.set(sum([blob.size async for blob in blobs.all()]))
        except StorageError as failure:
            log.warning("metrics.blob-store", cause=str(failure))
        await asyncio.sleep(_GAUGES_EVERY)
