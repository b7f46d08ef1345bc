"""Work that outlives its caller."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import delete, select

from storage.metadata.database import Database, replace
from storage.metadata.failures import retried
from storage.metadata.tables import operations
from storage.records import OperationRecord


class SqlOperationStore:
    """Operations in a database (storage.work_protocols.OperationStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def put(self, operation: OperationRecord) -> None:
        """Write the operation as it stands now."""
        async with self._database.write() as connection:
            await replace(connection, operations, asdict(operation))

    async def get(self, identifier: str) -> OperationRecord | None:
        """The operation, unless it ended long ago."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(operations).where(operations.c.id == identifier))).first()
        return None if row is None else OperationRecord(**row._mapping)

    @retried
    async def delete_before(self, time: datetime) -> int:
        """Forget operations not updated since; returns how many."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(operations).where(operations.c.updated < time))).rowcount
