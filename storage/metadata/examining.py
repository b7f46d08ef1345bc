"""Looking at a database as it is: unlike `SqlMetadataStore.open`, this changes nothing."""

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.metadata.database import Database, parse
from storage.metadata.migrations import STEPS, step

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Examined:
    """A database that answers.

    `step` is the last migration that it has (None: it has no tables of Lockstep's), `newest` the last that this version
    knows; `seconds` is the time of a small question, the median of a few; `clock` its time (aware) and ours then, where
    it has one of its own.
    """

    step: str | None
    newest: str
    is_newer: bool
    writable: bool
    seconds: float
    clock: tuple[datetime, datetime] | None


async def examine(url: str) -> Examined | None:
    """What the database at `url` is like; None where it is an SQLite file that is not there.

    Raises:
        StorageUnavailable: it cannot be asked.
        ValueError: the URL is none; it is not shown.
    """
    parsed = parse(url)
    embedded = parsed.get_backend_name() == "sqlite"
    file = Path(parsed.database or "")
    if embedded and not await asyncio.to_thread(file.is_file):
        return None
    database = Database.at(parsed)
    try:
        async with database.read() as connection:
            times = []
            for _ in range(_ROUNDS):
                began = time.perf_counter()
                await connection.execute(text("SELECT 1"))
                times.append(time.perf_counter() - began)
            found = await connection.run_sync(step)
            clock = None if embedded else await _clock(connection)
            writable = _is_writable(file) if embedded else await _is_primary(connection)
    finally:
        await database.close()
    return Examined(
        found, STEPS[-1], found is not None and found not in STEPS, writable, sorted(times)[_ROUNDS // 2], clock
    )


def _is_writable(file: Path) -> bool:
    # Its journal stands beside it.
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


async def _is_primary(connection: AsyncConnection) -> bool:
    told = (await connection.execute(text("SHOW transaction_read_only"))).scalar()
    return told == "off"


async def _clock(connection: AsyncConnection) -> tuple[datetime, datetime]:
    theirs = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    assert isinstance(theirs, datetime)  # noqa: S101 - what PostgreSQL's type is
    return theirs, datetime.now(UTC)
