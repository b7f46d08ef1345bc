"""`lockstep gc`, `fsck` and `migrate`: on the stores themselves, so that they work while no service does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from resolver.configured import database_url, open_blobs, open_metadata, retention_rules
from resolver.scratch import scratch_folder
from resolver.service.fsck import Checked, Checking
from resolver.service.healing import Healing
from resolver.service.retain import Collected, Retaining
from resolver.settings import Settings
from resolver.telemetry import configure_logging
from storage.blob_protocols import BlobStore
from storage.metadata.store import SqlMetadataStore
from storage.protocols import MetadataStore


def gc(settings: Settings, dry_run: bool) -> Collected:
    """One collection of garbage. Raises StorageError."""
    configure_logging(settings.log_format, settings.log_level)
    return asyncio.run(_gc(settings, dry_run))


def fsck(settings: Settings, repair: bool) -> Checked:
    """One check of the stores. Raises StorageError."""
    configure_logging(settings.log_format, settings.log_level)
    return asyncio.run(_fsck(settings, repair))


def migrate(settings: Settings) -> None:
    """Bring the tables up to date. Raises StorageError."""
    configure_logging(settings.log_format, settings.log_level)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(SqlMetadataStore.migrate(database_url(settings)))


async def _gc(settings: Settings, dry_run: bool) -> Collected:
    async with _stores(settings) as (blobs, metadata):
        retaining = Retaining(blobs, metadata.retention, metadata.workloads, retention_rules(settings))
        return await retaining.collect(dry_run=dry_run)


async def _fsck(settings: Settings, repair: bool) -> Checked:
    async with _stores(settings) as (blobs, metadata):
        checking = Checking(blobs, metadata.contents, Healing(blobs, metadata.contents))
        return await checking.check(repair=repair)


@asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[tuple[BlobStore, MetadataStore]]:
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder / "scratch-v1") as scratch:
        blobs, _ = await open_blobs(settings, scratch)
        metadata = await open_metadata(settings)
        try:
            yield blobs, metadata
        finally:
            await metadata.close()
