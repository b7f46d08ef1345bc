"""Builds from source, put together: part of the composition root (main.py)."""

import asyncio
import os
import platform
from datetime import timedelta
from pathlib import Path

from resolver.builders import job_launcher
from resolver.builds.here import BuildersHere
from resolver.builds.remote import RemoteBuilders
from resolver.builds.running import Limits
from resolver.builds.sandbox import Bubblewrap
from resolver.builds.tasks import Tasks
from resolver.client.environment import libc
from resolver.client.errors import FetchError
from resolver.domain.errors import UnsupportedTarget
from resolver.domain.ports import BuilderLauncher, Exclusive, Locker, ProjectPages, SdistBuilders, WheelFetcher
from resolver.domain.targets import TargetEnvironment
from resolver.service.building import Building
from resolver.service.fair_turns import FairTurns
from resolver.service.healing import Healing
from resolver.service.lock_book import LockBook
from resolver.service.locking import Locking
from resolver.settings import Settings
from resolver.telemetry import Metrics
from storage.blob_protocols import BlobStore
from storage.protocols import MetadataStore


async def building(
    settings: Settings,
    metadata: MetadataStore,
    blobs: BlobStore,
    healing: Healing,
    book: LockBook,
    pages: ProjectPages,
    wheels: WheelFetcher,
    locker: Locker,
    exclusive: Exclusive,
    scratch: Path,
    metrics: Metrics,
    launcher: BuilderLauncher | None,
    tasks: Tasks,
) -> Building:
    """What provides wheels that have to be built: by builders that the launcher starts, or, without one, on this host,
    with this process's own interpreter."""

    def observe(result: str, seconds: float) -> None:
        metrics.sdist_builds.labels(result).inc()
        metrics.sdist_build_seconds.observe(seconds)

    limits = limits_of(settings)
    host = await asyncio.to_thread(_host)
    builders: SdistBuilders = BuildersHere(Bubblewrap(limits, os.environ.get("PATH", os.defpath)), host)
    if launcher is not None:
        builders = RemoteBuilders(launcher, tasks, limits, host)
    return Building(
        metadata,
        blobs,
        healing,
        book,
        pages,
        wheels,
        # Of what builds want. Nobody asks for its bundle, so there is nothing to begin.
        Locking(locker, pages, wheels, None, passed_over="warn"),
        builders,
        exclusive,
        FairTurns(parallel=settings.parallel_sdists, queue=settings.queue, what="building from source"),
        scratch,
        refusals_for=timedelta(seconds=settings.refusals_for),
        observe=observe,
    )


def limits_of(settings: Settings) -> Limits:
    """What one step of a build may take."""
    return Limits(
        seconds=settings.sdist_timeout,
        memory=settings.sdist_memory,
        processes=settings.sdist_processes,
        disk=settings.sdist_disk,
    )


def launcher(settings: Settings) -> BuilderLauncher | None:
    """What starts builders elsewhere; None: builds are done on this host. Raises ValueError for settings that do not go
    together."""
    return job_launcher(settings)


def _host() -> TargetEnvironment | None:
    """The target class of this process; None where it is of none."""
    facts = {"python_full_version": platform.python_version(), "platform_machine": platform.machine()}
    try:
        return TargetEnvironment.from_markers(facts, libc())
    except (UnsupportedTarget, FetchError):
        return None
