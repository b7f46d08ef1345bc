"""The database: connections, transactions, and its failures in the store's words."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any, Self

from sqlalchemy import URL, Connection, Table, event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from storage.errors import StorageError, StorageFull, StorageUnavailable

_WAIT = 20.0
"""Seconds that a transaction waits for its turn: for a connection, and for other processes' writes."""
_READERS = 4


class Database:
    """Where transactions come from. SQLite lets one writer in at a time, so writers share one connection and queue
    for it in order; readers have others, and under WAL neither waits for the other."""

    def __init__(self, readers: AsyncEngine, writers: AsyncEngine) -> None:
        self._readers = readers
        self._writers = writers

    @classmethod
    async def open(cls, url: URL) -> Self:
        """The database at this URL. Raises StorageUnavailable, StorageFull; ValueError for an SQLite without a file."""
        if url.get_backend_name() != "sqlite":
            engine = create_async_engine(url, hide_parameters=True, pool_timeout=_WAIT, pool_pre_ping=True)
            return cls(engine, engine)
        if not url.database or url.database == ":memory:":
            raise ValueError("SQLite needs a file")
        with failures():
            await asyncio.to_thread(_use_wal, url.database)
        url = url.set(drivername="sqlite+aiosqlite")
        return cls(_sqlite(url, "BEGIN", _READERS), _sqlite(url, "BEGIN IMMEDIATE", 1))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing."""
        with failures():
            async with self._readers.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, whole or not at all."""
        with failures():
            async with self._writers.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Give the connections back."""
        await self._readers.dispose()
        await self._writers.dispose()


def insert(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what to do on conflict, in this database's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


async def replace(connection: AsyncConnection, table: Table, row: dict[str, Any]) -> None:
    """Write the row; one with the same primary key gives way."""
    statement = insert(connection, table).values(row)
    others = {name: value for name, value in statement.excluded.items() if name not in table.primary_key.columns}
    await connection.execute(statement.on_conflict_do_update(index_elements=table.primary_key.columns, set_=others))


@contextmanager
def failures() -> Iterator[None]:
    """Turns the database's failures into StorageFull, StorageUnavailable, or, where a record names another that is
    not here, StorageError. Statements and parameters stay out of the message."""
    try:
        yield
    except exc.IntegrityError as error:
        raise StorageError("a record refers to another that is not here") from error
    except (exc.ProgrammingError, exc.DataError, exc.NotSupportedError):
        raise
    except exc.DBAPIError as error:
        raise _failure(error.orig) from error
    except exc.TimeoutError as error:
        raise StorageUnavailable(f"no database connection came free within {_WAIT:g} s") from error
    except sqlite3.Error as error:
        raise _failure(error) from error


def _failure(error: BaseException | None) -> StorageError:
    # SQLSTATE class 53, "insufficient resources": disk_full
    name = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or type(error).__name__
    if name in ("SQLITE_FULL", "53100"):
        return StorageFull("no room left for the database")
    return StorageUnavailable(f"the database does not answer: {name}")


def _use_wal(path: str) -> None:
    """Turn write-ahead logging on, which the file then remembers. SQLite does not wait for its busy_timeout here."""
    deadline = time.monotonic() + _WAIT
    with closing(sqlite3.connect(path, timeout=_WAIT)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # The low byte is the primary code; recovery after a crash has a busy code of its own.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)


def _sqlite(url: URL, begin: str, connections: int) -> AsyncEngine:
    """An engine whose transactions start with `begin`: the driver's own habit is to start them at the first write,
    where SQLite can no longer wait for another writer but must fail."""
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_WAIT,
        connect_args={"timeout": _WAIT, "isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
