"""What an operator said of a workload as a whole: refreshes and holds."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from storage.metadata.database import Database, insert
from storage.metadata.tables import workloads
from storage.records import Hold, WorkloadRecord

_KEY = [workloads.c.namespace, workloads.c.workload]


class SqlWorkloadStore:
    """Workloads in a database (storage.protocols.WorkloadStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, workload: str) -> WorkloadRecord:
        """The record; one that nobody touched has no refresh and no hold."""
        query = select(workloads).where(workloads.c.namespace == namespace, workloads.c.workload == workload)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return WorkloadRecord(namespace, workload) if row is None else _record(row)

    async def refresh(self, namespace: str, workload: str, at: datetime) -> WorkloadRecord:
        """Record a refresh: counts it, keeps its time, ends a hold."""
        async with self._database.write() as connection:
            statement = insert(connection, workloads).values(
                namespace=namespace, workload=workload, refreshes=1, refreshed_at=at
            )
            counted = statement.on_conflict_do_update(
                index_elements=_KEY,
                set_={
                    "refreshes": workloads.c.refreshes + 1,
                    "refreshed_at": statement.excluded.refreshed_at,
                    "hold_lock": None,
                    "hold_at": None,
                },
            )
            return _record((await connection.execute(counted.returning(*workloads.c))).one())

    async def hold(self, namespace: str, workload: str, hold: Hold) -> WorkloadRecord:
        """Name the lock that new revisions take until the next refresh. Raises StorageError where it is not here."""
        async with self._database.write() as connection:
            statement = insert(connection, workloads).values(
                namespace=namespace, workload=workload, refreshes=0, hold_lock=hold.lock, hold_at=hold.at
            )
            held = statement.on_conflict_do_update(
                index_elements=_KEY,
                set_={"hold_lock": statement.excluded.hold_lock, "hold_at": statement.excluded.hold_at},
            )
            return _record((await connection.execute(held.returning(*workloads.c))).one())


def _record(row: Row[Any]) -> WorkloadRecord:
    hold = None if row.hold_lock is None else Hold(row.hold_lock, row.hold_at)
    return WorkloadRecord(row.namespace, row.workload, row.refreshes, row.refreshed_at, hold)
