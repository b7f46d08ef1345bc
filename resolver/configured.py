"""What the settings name, opened: stores, indexes, the engine, and what is kept. Part of the composition root, for
main.py and for commands that work on the stores without the service."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from resolver.domain.ports import Locker
from resolver.domain.requests import Index
from resolver.engines.interpreters import Interpreter
from resolver.engines.pip import PipLocker, default_index_url
from resolver.engines.uv import UvLocker
from resolver.service.retain import Rules
from resolver.settings import Settings
from storage.blob_protocols import BlobLinks, BlobStore
from storage.blobs.object_store import ObjectBlobStore
from storage.blobs.opening import open_blob_store
from storage.metadata.store import SqlMetadataStore


async def open_blobs(settings: Settings, scratch: Path) -> tuple[BlobStore, BlobLinks | None]:
    """The blob store that is set, and what makes links to it, where it can."""
    blobs = await open_blob_store(settings.blob_url or settings.data_dir.absolute() / "blobs", scratch)
    return blobs, blobs if settings.blob_links and isinstance(blobs, ObjectBlobStore) else None


async def open_metadata(settings: Settings) -> SqlMetadataStore:
    """The metadata store that is set, its tables up to date."""
    return await SqlMetadataStore.open(database_url(settings))


def database_url(settings: Settings) -> str:
    """Where the database is; it may hold a password."""
    if settings.database_url is None:
        return f"sqlite:///{settings.data_dir.absolute() / 'lockstep.db'}"
    return settings.database_url.get_secret_value()


def retention_rules(settings: Settings) -> Rules:
    """What is kept, as it is set."""
    return Rules(
        revisions=settings.keep_revisions,
        used=timedelta(seconds=settings.keep_for),
        seen=timedelta(seconds=settings.forget_after),
        grace=timedelta(seconds=settings.gc_grace),
        most=settings.max_store or None,
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


def open_engine(settings: Settings, folder: Path, scratch: Path, interpreters: Mapping[str, Interpreter]) -> Locker:
    """The engine that is set, with a cache of its own in the data folder."""
    cache = folder / f"{settings.engine}-cache"
    # Engines keep pages as an index served them, signed URLs and all.
    cache.mkdir(mode=0o700, exist_ok=True)
    timeout, memory, http_timeout = settings.engine_timeout, settings.engine_memory, round(settings.index_timeout)
    if settings.engine == "uv":
        return UvLocker(
            cache,
            cache_limit=settings.engine_cache,
            timeout=timeout,
            memory=memory,
            http_timeout=http_timeout,
            workspace=scratch,
        )
    paths = {python: interpreter.path for python, interpreter in interpreters.items()}
    return PipLocker(
        paths,
        cache,
        cache_limit=settings.engine_cache,
        timeout=timeout,
        memory=memory,
        http_timeout=http_timeout,
        workspace=scratch,
    )
