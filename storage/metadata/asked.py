"""What was asked for lately."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import case, delete, select

from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import asked
from storage.records import AskedRecord


class SqlAskedStore:
    """What was asked for, in a database (storage.protocols.AskedStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def add(self, records: Collection[AskedRecord]) -> None:
        """Count these in: times add up, the latest stands."""
        if not records:
            return
        # In one order, so that writers which count the same rows wait for each other, never in a circle.
        rows = [asdict(record) for record in sorted(records, key=lambda record: (record.key, record.target))]
        async with self._database.write() as connection:
            statement = insert(connection, asked)
            new = statement.excluded
            counted = statement.on_conflict_do_update(
                index_elements=[asked.c.key, asked.c.target],
                set_={
                    "times": asked.c.times + new.times,
                    "last": case((new.last > asked.c.last, new.last), else_=asked.c.last),
                },
            )
            await connection.execute(counted, rows)

    async def most(self, since: datetime, limit: int) -> list[AskedRecord]:
        """What was asked for since then, the most times first, then the latest."""
        query = (
            select(asked)
            .where(asked.c.last >= since)
            .order_by(asked.c.times.desc(), asked.c.last.desc(), asked.c.key, asked.c.target)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [AskedRecord(**row._mapping) for row in await connection.execute(query)]

    @retried
    async def delete_before(self, time: datetime) -> int:
        """Forget what nobody asked for since; returns how many."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(asked).where(asked.c.last < time))).rowcount
