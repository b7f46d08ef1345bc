"""SQLite, embedded: one file, one writer at a time, readers beside it."""

import sqlite3
import time
from contextlib import closing

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

WAIT = 20.0
"""Seconds that a transaction waits for its turn: for a connection, and for other processes' writes."""
_READERS = 4


def readers(url: URL) -> AsyncEngine:
    """Connections for transactions that change nothing; under WAL they wait for no writer."""
    return _engine(url, "BEGIN", _READERS)


def writer(url: URL) -> AsyncEngine:
    """The one connection of this process that writes: its users queue for it in order."""
    return _engine(url, "BEGIN IMMEDIATE", 1)


def migrator(url: URL) -> Engine:
    """A blocking engine for a migration, which is a write: writes take turns, between processes too.

    Raises: ValueError for a database without a file; sqlite3.Error where the file cannot be used.
    """
    if not url.database or url.database == ":memory:":
        raise ValueError("SQLite needs a file")
    _use_wal(url.database)
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"), hide_parameters=True, poolclass=NullPool, connect_args=_arguments()
    )
    _configure(engine, "BEGIN IMMEDIATE")
    return engine


def _engine(url: URL, begin: str, connections: int) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=WAIT,
        connect_args=_arguments(),
    )
    _configure(engine.sync_engine, begin)
    return engine


def _arguments() -> dict[str, float | None]:
    return {"timeout": WAIT, "isolation_level": None}


def _configure(engine: Engine, begin: str) -> None:
    """Transactions start with `begin`: the driver's own habit is to start them at the first write, where SQLite can
    no longer wait for another writer but must fail."""

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _use_wal(path: str) -> None:
    """Turn write-ahead logging on, which the file then remembers. SQLite does not wait for its busy_timeout here."""
    deadline = time.monotonic() + WAIT
    with closing(sqlite3.connect(path, timeout=WAIT)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # The low byte is the primary code; recovery after a crash has a busy code of its own.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)
