"""The composition root: the only module that names concrete classes. Read it to see what the service is made of."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
import uvloop
from starlette.types import ASGIApp

from resolver import auth, from_source
from resolver.api import problems
from resolver.api.app import build_app
from resolver.api.context import Services
from resolver.api.ready import Ready
from resolver.builds.tasks import Tasks
from resolver.bundles.builder import ProcessLayerBuilder
from resolver.client.build import archive
from resolver.configured import configured_indexes, open_blobs, open_engine, open_metadata, retention_rules
from resolver.domain.errors import LockstepError
from resolver.domain.outcomes import Refusal
from resolver.domain.ports import Exclusive, Locker
from resolver.domain.targets import TargetEnvironment
from resolver.engines.interpreters import UnusableInterpreter, discover
from resolver.engines.uv import UvLocker
from resolver.scratch import scratch_folder
from resolver.server import Server, listening_on
from resolver.service.access import Access
from resolver.service.asked import Asked
from resolver.service.contents import Contents
from resolver.service.delegation import Answering, Delegating, Elsewhere, Worker
from resolver.service.fair_turns import FairTurns
from resolver.service.head_start import HeadStart
from resolver.service.healing import Healing
from resolver.service.images import Images
from resolver.service.index_health import IndexHealth
from resolver.service.inspect import Inspecting
from resolver.service.leases import Alone, Leased
from resolver.service.lock_book import LockBook
from resolver.service.lock_making import LockMaking
from resolver.service.locking import Locking
from resolver.service.materialise import Materialising
from resolver.service.operations import Operations
from resolver.service.pinned import Pinned
from resolver.service.policies import Bounded, Measured, MeasuredLayers
from resolver.service.requests import Requests
from resolver.service.resolve import Resolving
from resolver.service.retain import Retaining, collect_again_and_again
from resolver.service.shared_parts import SharedParts
from resolver.service.streams import Streams
from resolver.service.uses import ClaimedWheels, Uses
from resolver.service.warm import Warming
from resolver.service.workloads import Workloads
from resolver.settings import Settings
from resolver.telemetry import CountedFetches, Metrics, configure_logging, request_log
from resolver.upstream.pages import SimplePages
from resolver.upstream.probe import HttpProbe
from resolver.upstream.transfer import index_client
from resolver.upstream.wheels import WheelDownloads
from resolver.warm_up import Cold, warm_up
from storage.blob_protocols import BlobJanitor
from storage.errors import StorageError

log = structlog.get_logger(__name__)

_GAUGES_EVERY = 60.0
_TRUSTED = timedelta(seconds=1)
"""How long a blob that is being served is not looked at again; less than a client takes to ask anew for wrong bytes."""


def serve(settings: Settings) -> int:
    """Run the service until it is told to stop. Returns the exit code."""
    configure_logging(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_serve(settings))
        except (LockstepError, StorageError, UnusableInterpreter, ValueError) as failure:
            # The operator's settings, or what they name, and not a fault in here: said in a line, without a trace.
            log.error("service.cannot-start", cause=str(failure))  # noqa: TRY400
            return os.EX_UNAVAILABLE if isinstance(failure, StorageError) else os.EX_USAGE


async def _serve(settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        sockets = stack.enter_context(listening_on(settings.listen))
        app, operations, webhooks = await stack.enter_async_context(compose(settings))
        if webhooks is not None:
            from resolver import webhook

            await stack.enter_async_context(webhook.listening(webhooks, settings))
        gc.freeze()  # what is here stays: collections of garbage need not look at it again and again
        gc.set_threshold(20_000)  # nor at what a page of ten thousand files is made of, while it is being made
        gc.enable()
        await Server(app, operations, settings.shutdown_grace).serve(sockets)
    log.info("service.stopped")
    return 0


@asynccontextmanager
async def compose(settings: Settings) -> AsyncIterator[tuple[ASGIApp, Operations, ASGIApp | None]]:
    """The application on its stores, engine and indexes, and that of the webhook, where it is set; all of it is closed
    at the end, in reverse."""
    async with AsyncExitStack() as stack:
        if settings.role != "all" and not (settings.database_url and settings.blob_url):
            raise ValueError(f"role {settings.role}: needs a database and a blob store that processes share")
        for platform in settings.platforms:
            TargetEnvironment.from_platform("3.12", platform)  # refuses what no lock could cover
        folder = settings.data_dir.absolute()
        # It holds wheels of private indexes, and what engines keep of their pages.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_folder(folder / "scratch-v1"))
        metrics = Metrics()
        indexes = configured_indexes(settings)
        # Who calls; the keys of tokens are asked for while the rest is made ready.
        door = await stack.enter_async_context(auth.opened(settings))

        # Processes that take their time to say what they are; the rest is made ready meanwhile.
        discovering = asyncio.create_task(discover(os.environ.get("PATH", os.defpath), settings.interpreters, scratch))
        stack.push_async_callback(_ended, discovering)

        # The stores: bytes by digest, references by key.
        blobs, links = await open_blobs(settings, scratch)
        metadata = await open_metadata(settings)
        stack.push_async_callback(metadata.close)

        # Where replicas share a database, one at a time does a piece of work; one process alone needs no leases; one
        # that only answers looks for what others did.
        leased = Leased(metadata.leases, taken_over=metrics.lease_takeovers.inc)
        exclusive: Exclusive = leased if settings.database_url else Alone()
        if settings.role == "api":
            exclusive = Elsewhere()

        # The indexes: a client for pages and one for wheels, since each request looks at all connections of its client.
        http, downloading = [
            await stack.enter_async_context(index_client(version("lockstep"), settings.index_timeout)) for _ in range(2)
        ]
        health = IndexHealth(
            HttpProbe(http),
            tell=lambda index, up: metrics.index_up.labels(index).set(up),
            offline=settings.network == "offline",
        )
        stack.push_async_callback(health.close)
        for index in indexes:
            metrics.index_up.labels(index.name).set(1)
        pages = SimplePages(http)
        stack.push_async_callback(pages.close)
        downloads = WheelDownloads(
            downloading, pages, blobs, exclusive, parallel=settings.parallel_downloads, observer=CountedFetches(metrics)
        )
        stack.push_async_callback(downloads.close)

        # What is in use is told to the stores, so that a collection, here or elsewhere, leaves it alone.
        rules = retention_rules(settings)
        uses = Uses(
            metadata.artifacts,
            metadata.workloads,
            every=rules.grace / 4,
            forgotten=max(rules.seen, rules.grace),
        )
        stack.push_async_callback(uses.close)
        wheels = ClaimedWheels(downloads, metadata.contents, every=rules.grace / 4)
        healing = Healing(blobs, metadata.contents, mended=lambda: ready.clear())
        stack.push_async_callback(healing.close)

        # The engine. Bounded inside measured: what is measured is what a caller waits for, its turn included.
        # Single flight stands around both, in Resolving: those who join a flight take no place in the queue.
        interpreters = await discovering
        engine = open_engine(settings, folder, scratch, interpreters)
        locker: Locker = Bounded(engine, parallel=settings.parallel_resolves, queue=settings.queue)
        locker = Measured(locker, lambda engine, seconds: metrics.resolve_seconds.labels(engine).observe(seconds))

        # The layers, built in worker processes.
        builder = ProcessLayerBuilder(interpreters, workers=settings.parallel_builds, timeout=settings.build_timeout)
        stack.push_async_callback(builder.close)

        book = LockBook(metadata.locks)
        materialising = Materialising(
            blobs,
            metadata.artifacts,
            metadata.contents,
            uses,
            healing,
            wheels,
            MeasuredLayers(builder, metrics.layer_build_seconds.observe),
            {index.name: index for index in indexes},
            scratch,
            exclusive,
            shared_paths=settings.shared_paths,
        )
        stack.push_async_callback(materialising.close)
        ahead = HeadStart(pages, materialising.begin, parallel=settings.parallel_downloads)
        locking = Locking(
            locker, pages, wheels, ahead, passed_over=settings.passed_over, target_conflict=settings.target_conflict
        )
        # What has to be built, by builders that ask this process, and no other, for their tasks.
        launcher, tasks = from_source.launcher(settings), Tasks()
        building = await from_source.building(
            settings,
            metadata,
            blobs,
            healing,
            book,
            pages,
            wheels,
            locker,
            exclusive,
            scratch,
            metrics,
            launcher,
            tasks,
        )
        stack.push_async_callback(building.close)
        making = LockMaking(
            metadata,
            book,
            locking,
            materialising,
            building,
            exclusive,
            health,
            FairTurns(parallel=settings.parallel_resolves, queue=settings.queue),
            platforms=settings.platforms,
            refusals_for=timedelta(seconds=settings.refusals_for),
        )
        stack.push_async_callback(making.close)
        metrics.single_flight_waiters.set_function(lambda: making.under_way)
        pinned = Pinned(metadata.pins, uses, builder.toolchain, platforms=settings.platforms)
        resolving = Resolving(
            metadata,
            book,
            making,
            materialising,
            uses,
            pinned,
            platforms=settings.platforms,
            # A mode that prefers the store takes a lock of any age: there is none of a hundred years.
            fresh_for=timedelta(seconds=settings.fresh_for) if settings.network == "online" else timedelta(days=36500),
        )
        requests = Requests(indexes, settings.builds, settings.namespace_builds)
        answering: Answering = resolving
        if settings.role == "api":
            answering = Delegating(resolving, metadata.jobs, most=settings.queue)
        if settings.role == "worker":
            worker = Worker(
                resolving, requests, metadata.jobs, leased, _explained, parallel=2 * settings.parallel_resolves
            )
            working = asyncio.create_task(worker.run())
            stack.push_async_callback(_ended, working)
        asked = Asked(metadata.asked, requests, settings.platforms)
        stack.push_async_callback(asked.close)
        ready = Ready(pinned, asked, metrics.resolve_requests.labels(outcome="pinned").inc)
        stack.push_async_callback(ready.close)
        streams = Streams(
            parallel=settings.streams,
            queue=settings.stream_queue,
            patience=settings.stream_wait,
            memory=settings.stream_memory,
            refused=metrics.blob_streams_refused.inc,
        )
        metrics.blob_streams.set_function(lambda: streams.under_way)
        metrics.blob_streams_waiting.set_function(lambda: streams.waiting)
        operations = Operations(metadata.operations, limit=settings.queue)
        stack.push_async_callback(operations.close, 0.0)
        shared = SharedParts({"database": metadata.ping, "blob store": blobs.ping, **door.parts}, health)
        stack.push_async_callback(shared.close)
        contents = Contents(blobs, metadata.artifacts, healing, links, trusted=_TRUSTED)
        images = Images(
            blobs, metadata.images, metadata.contents, contents, book, materialising, uses, every=rules.grace / 4
        )
        gauges = asyncio.create_task(_measure_store(blobs, metrics))
        stack.callback(gauges.cancel)
        retaining = Retaining(blobs, metadata.retention, metadata.workloads, rules, freed=metrics.gc_deleted_bytes.inc)
        if settings.gc_every:
            collecting = asyncio.create_task(collect_again_and_again(retaining, settings.gc_every))
            stack.callback(collecting.cancel)
        if settings.role != "api":
            builder.start()
        # Last, and waited for by nobody, as it takes of the CPU that a start needs.
        cold: Cold = {"database": metadata.connect}
        if isinstance(engine, UvLocker) and settings.role != "api":
            cold["engine"] = partial(engine.prepare, indexes)
        stack.push_async_callback(_ended, asyncio.create_task(warm_up(cold)))

        tell = request_log(settings.log_format, settings.log_level)

        def pack_client() -> Coroutine[Any, Any, bytes]:
            return asyncio.to_thread(archive, [each.path for each in interpreters.values()])

        warming = Warming(answering, requests, asked, parallel=settings.parallel_warm)
        webhooks = None
        if settings.webhook_listen and settings.role != "worker":
            from resolver import webhook  # a part of a start to import, which few services have a use for
            from resolver.api.webhooks import build_webhooks

            admission = webhook.admission(settings, await pack_client(), requests, warming, resolving, book, metrics)
            stack.push_async_callback(admission.close)
            webhooks = build_webhooks(admission, tell)

        yield (
            build_app(
                Services(
                    requests=requests,
                    resolving=answering,
                    ready=ready,
                    asked=asked,
                    warming=warming,
                    operations=operations,
                    inspecting=Inspecting(metadata.locks, book, metadata.pins, metadata.builds),
                    access=Access(indexes, book, metadata.access),
                    workloads=Workloads(metadata.workloads, metadata.locks),
                    contents=contents,
                    images=images,
                    streams=streams,
                    metrics=metrics,
                    degraded=shared.degraded,
                    client=pack_client,
                    max_body=settings.max_body,
                    max_wait=settings.max_wait,
                    tell_request=tell,
                    identity=door.identity,
                    tasks=tasks if launcher else None,
                ),
                answers=settings.role != "worker",
            ),
            operations,
            webhooks,
        )


def _explained(found: Exception | Refusal) -> dict[str, Any]:
    # The id of the request that waits for it is put in its place when it is answered.
    if isinstance(found, Exception):
        return problems.of_exception(found, "")
    return problems.of_refusal(found, "")


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _measure_store(blobs: BlobJanitor, metrics: Metrics) -> None:
    while True:
        try:
            metrics.blob_store_bytes.set(sum([blob.size async for blob in blobs.all()]))
        except StorageError as failure:
            log.warning("metrics.blob-store", cause=str(failure))
        await asyncio.sleep(_GAUGES_EVERY)
