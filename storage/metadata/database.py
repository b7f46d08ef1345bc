"""The database: where transactions come from, and the statements that its dialects say in their own ways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import JSON, URL, ScalarSelect, Subquery, Table, exc, func, make_url, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.metadata import postgresql, sqlite
from storage.metadata.failures import failures
from storage.metadata.migrations import bring_up_to_date

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

_READERS = 4
"""Connections for reads that are made beforehand."""


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
            async with asyncio.timeout(self._timeout), _begun(self._readers) as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, whole or not at all. Raises: as `failures` has them."""
        with failures():
            async with asyncio.timeout(self._timeout), _begun(self._writers) as connection:
                yield connection
                await connection.commit()

    async def connect(self) -> None:
        """Make connections now, so that the first transactions do not wait for theirs. Raises: as `failures` has
        them."""
        async with AsyncExitStack() as stack:
            for _ in range(_READERS):
                await stack.enter_async_context(self.read())
            await stack.enter_async_context(self.write())

    async def close(self) -> None:
        """Give the connections back."""
        await self._readers.dispose()
        await self._writers.dispose()


@asynccontextmanager
async def _begun(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection with a transaction begun, undone at the end of the block unless it is committed there.

    BEGIN is the first thing that a connection of the pool hears after it idled. Where it broke meanwhile, that fails,
    all of its age are given up, and a new one is taken: as good as asking each first, for one way to the server less.
    """
    for is_last in (False, True):
        async with engine.connect() as connection:
            try:
                await connection.begin()
            except exc.DBAPIError as error:
                if is_last or not error.connection_invalidated:
                    raise
                continue
            yield connection
            return


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


def insert(connection: AsyncConnection, table: Table) -> "SqliteInsert | PostgresqlInsert":
    """An INSERT that can say what to do on conflict, in this database's dialect. A process has use for one of them, and
    each is a part of a start to import."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)


def aggregated(connection: AsyncConnection, rows: Subquery) -> ScalarSelect[Any]:
    """These rows as one value: a list of lists, in no order that can be relied on; None or empty where there are none.
    Columns come as the database has them."""
    if connection.dialect.name == "postgresql":
        value = func.json_agg(func.json_build_array(*rows.c))
    else:
        value = func.json_group_array(func.json_array(*rows.c))
    return select(type_coerce(value, JSON)).select_from(rows).scalar_subquery()


async def replace(connection: AsyncConnection, table: Table, row: dict[str, Any]) -> None:
    """Write the row; one with the same primary key gives way."""
    statement = insert(connection, table).values(row)
    others = {name: value for name, value in statement.excluded.items() if name not in table.primary_key.columns}
    await connection.execute(statement.on_conflict_do_update(index_elements=table.primary_key.columns, set_=others))
