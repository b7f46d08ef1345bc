"""Leases: which replica does a piece of work. Time is the database's own, since replicas' clocks differ."""

from typing import Any

from sqlalchemy import BigInteger, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from storage.errors import LeaseLost
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import leases
from storage.records import Lease

_MICROSECONDS = 1_000_000


class _Now(FunctionElement[int]):
    """Microseconds since 1970 by the database's clock, at the statement, not at the transaction's start."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _sqlite_now(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    # unixepoch('subsec') came with SQLite 3.42, which not every Python has.
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"


@compiles(_Now, "postgresql")
def _postgresql_now(element: _Now, compiler: SQLCompiler, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


class SqlLeaseStore:
    """Leases in a database (storage.work_protocols.LeaseStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """The lease, for that long, unless somebody else holds it."""
        until = _Now() + int(seconds * _MICROSECONDS)
        async with self._database.write() as connection:
            taken = insert(connection, leases).values(name=name, holder=holder, token=1, expires=until)
            mine = taken.on_conflict_do_update(
                index_elements=[leases.c.name],
                set_={"holder": holder, "token": leases.c.token + 1, "expires": until},
                where=leases.c.expires <= _Now(),
            )
            token = (await connection.execute(mine.returning(leases.c.token))).scalar()
        # A token above one means that the holder before did not release it: it is gone, or too late.
        return None if token is None else Lease(name, holder, token, takeover=token > 1)

    @retried
    async def renew(self, lease: Lease, seconds: float) -> bool:
        """Hold the lease for that long from now; False where it is no longer the holder's."""
        until = _Now() + int(seconds * _MICROSECONDS)
        statement = update(leases).where(_is(lease), leases.c.expires > _Now()).values(expires=until)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount == 1

    @retried
    async def release(self, lease: Lease) -> None:
        """Let the next one have it at once."""
        async with self._database.write() as connection:
            await connection.execute(delete(leases).where(_is(lease)))


async def require(connection: AsyncConnection, lease: Lease | None) -> None:
    """See to it that the lease (None: none is needed) is held until this transaction ends. Raises LeaseLost."""
    if lease is None:
        return
    held = select(leases.c.token).where(_is(lease), leases.c.expires > _Now()).with_for_update()
    if (await connection.execute(held)).first() is None:
        raise LeaseLost(lease.name)


def _is(lease: Lease) -> Any:
    return (leases.c.name == lease.name) & (leases.c.holder == lease.holder) & (leases.c.token == lease.token)
