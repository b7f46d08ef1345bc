"""Where things are kept: the database, the blobs, and the folder for work under way."""

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from resolver.client.console import size
from resolver.configured import database_url, open_blobs
from resolver.doctor import clock
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.scratch import scratch_folder
from resolver.settings import Settings
from storage.blobs.object_store import ObjectBlobStore
from storage.content import Digest
from storage.errors import StorageError
from storage.metadata.examining import Examined, examine

_SLOW = 0.05  # seconds of a small question to the database
_TOO_SLOW = 0.5
_LITTLE_ROOM = 5 << 30
_NO_ROOM = 1 << 30
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SECONDS = 10.0


async def check_database(settings: Settings) -> list[Finding]:
    """Reachable, quick, its tables those of this version, and ours to write."""
    about = "PostgreSQL" if settings.database_url else "SQLite"
    try:
        found = await examine(database_url(settings))
    except StorageError as failure:
        way_out = "a volume that uid 10001 may write (fsGroup: 10001), the file whole"
        if settings.database_url:
            way_out = (
                "the address, name and password in database_url; the way there (networkPolicy.database); is it up?"
            )
        return [wrong("database", about, f"cannot be used: {failure}", way_out)]
    except ValueError as failure:
        return [wrong("database", about, str(failure), "database_url: postgresql://user@host/db")]
    if found is None:
        return [note("database", about, "is not there as yet", "`lockstep serve` makes it at its start")]
    findings = [*_schema(about, found), _speed(about, found)]
    if not found.writable:
        told = "takes no writes: a standby, or a file or folder that is read-only"
        findings.append(wrong("database", about, told, "name the primary; give uid 10001 the volume (fsGroup)"))
    if found.clock:
        findings.append(clock.compared("database", *found.clock))
    return findings


def _schema(about: str, found: Examined) -> list[Finding]:
    if found.step == found.newest:
        return [well("database", about, f"its tables are those of this version ({found.newest})")]
    if found.is_newer:
        told = f"a newer version brought its tables to {found.step}; this one knows {found.newest}"
        return [wrong("database", about, told, "run that version, or restore the backup of before the upgrade")]
    if found.step is None:
        return [note("database", about, "has no tables as yet", "`lockstep serve` makes them at its start")]
    told = f"its tables are at {found.step}, this version needs {found.newest}"
    return [wrong("database", about, told, "`lockstep migrate`, as a user that may change tables; `serve` tries to")]


def _speed(about: str, found: Examined) -> Finding:
    told = f"answers in {1000 * found.seconds:.1f} ms"
    if found.seconds < _SLOW:
        return well("database", about, told)
    return (wrong if found.seconds > _TOO_SLOW else note)(
        "database", about, told, "put it in the same zone, and look at its load: a pinned answer is one question to it"
    )


async def check_blobs(settings: Settings) -> list[Finding]:
    """Write a probe, read it, delete it; whether what is there is never written over."""
    about = (settings.blob_url or "").partition("://")[0] or "folder"
    content = f"lockstep doctor {uuid.uuid4()}".encode()
    digest = Digest.of(content)
    findings = []
    try:
        with scratch_folder(settings.data_dir.absolute() / "scratch-v1") as scratch:
            blobs, _ = await open_blobs(settings, scratch)
            began = time.perf_counter()
            await blobs.write(_one(content), digest)
            try:
                read = b"".join([chunk async for chunk in blobs.read(digest)])
                seconds = time.perf_counter() - began
            finally:
                await blobs.delete(digest)
            if read != content or await blobs.size(digest) is not None:
                way_out = "is something between that caches or changes objects?"
                findings.append(wrong("store", about, "a probe came back otherwise than it was written", way_out))
            else:
                findings.append(well("store", about, f"a probe was written, read and deleted in {seconds:.2f} s"))
            if isinstance(blobs, ObjectBlobStore) and not await blobs.creates_once():
                told = "has no conditional create (If-None-Match): two writers of one blob both write it, to no harm"
                findings.append(note("store", about, told, "a newer version of the object storage"))
    except (StorageError, OSError) as failure:
        way_out = "the bucket, its credentials and region, the way there; or the folder: its owner (fsGroup) and room"
        return [wrong("store", about, f"cannot be used: {failure}", way_out)]
    except ValueError as failure:
        return [wrong("store", about, str(failure), "blob_url: s3://bucket/prefix, gs://… or az://…")]
    return findings


async def check_store_clock(settings: Settings) -> list[Finding]:
    """By the Date of the object storage, where a variable says where it is."""
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if not endpoint or not (settings.blob_url or "").startswith("s3:"):
        return []
    try:
        async with httpx.AsyncClient(timeout=_SECONDS) as http:
            answer = await http.head(endpoint)
            return clock.of_answer("object storage", answer, datetime.now(UTC))
    except (httpx.HTTPError, httpx.InvalidURL):
        return []  # `check_blobs` tells of a store that does not answer


async def check_shared(settings: Settings) -> list[Finding]:
    """Whether replicas share both stores, or neither."""
    if bool(settings.database_url) == bool(settings.blob_url):
        return []
    told = (
        "the database is shared, the blobs are not"
        if settings.database_url
        else "blobs are shared, the database is not"
    )
    return [note("store", "sharing", told, "one replica alone may do so; several need database_url and blob_url")]


async def check_scratch(settings: Settings) -> list[Finding]:
    """The data folder: ours to write, and with room for work under way."""
    return await asyncio.to_thread(_scratch, settings.data_dir.absolute())


def _scratch(folder: Path) -> list[Finding]:
    about = str(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with scratch_folder(folder / "scratch-v1") as scratch:
            (scratch / "probe").write_bytes(b"probe")
        room = shutil.disk_usage(folder).free
    except OSError as failure:
        told = f"cannot be written: {failure.strerror}"
        return [wrong("scratch", about, told, "a volume that uid 10001 may write (fsGroup: 10001), mounted there")]
    told = f"{size(room)} free"
    if room >= _LITTLE_ROOM:
        return [well("scratch", about, told)]
    way_out = "a larger volume, or scratch.sizeLimit: a wheel, its tree and its layer stand there side by side"
    return [(wrong if room < _NO_ROOM else note)("scratch", about, told, way_out)]


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
