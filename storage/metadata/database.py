"""The database: where transactions come from, and the statements that its dialects say in their own ways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy import URL, Table, exc, make_url
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.metadata import postgresql, sqlite
from storage.metadata.failures import failures
from storage.metadata.migrations import bring_up_to_date


class Database:
    """Where transactions come from. Makes no connection before the first."""

    def __init__(self, readers: AsyncEngine, writers: AsyncEngine, timeout: float | None) -> None:
        self._readers = readers
        self._writers = writers
        self._timeout = timeout

    @classmethod
    def at(cls, url: URL) -> Self:
        """The database at this URL."""
        if url.get_backend_name() == "sqlite":
            return cls(sqlite.readers(url), sqlite.writer(url), timeout=None)
        engine = postgresql.pool(url)
        return cls(engine, engine, postgresql.TRANSACTION_TIMEOUT)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing. Raises: as `failures` has them."""
        with failures():
            async with asyncio.timeout(self._timeout), self._readers.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, whole or not at all. Raises: as `failures` has them."""
        with failures():
            async with asyncio.timeout(self._timeout), self._writers.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Give the connections back."""
        await self._readers.dispose()
        await self._writers.dispose()


def parse(url: str) -> URL:
    """The URL of a database that Lockstep can use. Raises ValueError, which shows nothing of it."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ValueError("not the URL of a database") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError("the database must be sqlite:///… or postgresql://…")
    return parsed


def migrate(url: URL) -> None:
    """Bring the tables up to date. Blocks; several processes may do so at once.

    Raises: as `failures` has them; StorageError for a database of a newer Lockstep; ValueError for an SQLite without
    a file.
    """
    with failures():
        backend = sqlite if url.get_backend_name() == "sqlite" else postgresql
        bring_up_to_date(backend.migrator(url))


def insert(connection: AsyncConnection, table: Table) -> sqlite_dialect.Insert | postgresql_dialect.Insert:
    """An INSERT that can say what to do on conflict, in this database's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql_dialect.insert(table)
    return sqlite_dialect.insert(table)


async def replace(connection: AsyncConnection, table: Table, row: dict[str, Any]) -> None:
    """Write the row; one with the same primary key gives way."""
    statement = insert(connection, table).values(row)
    others = {name: value for name, value in statement.excluded.items() if name not in table.primary_key.columns}
    await connection.execute(statement.on_conflict_do_update(index_elements=table.primary_key.columns, set_=others))
