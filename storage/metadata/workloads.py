"""What an operator said of a workload as a whole: refreshes and holds."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, delete, exists, func, or_, select

from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import pins, workloads
from storage.records import Hold, WorkloadRecord

_BATCH = 500
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

    @retried
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

    @retried
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

    @retried
    async def see(self, namespace: str, workload: str, at: datetime) -> None:
        """Record that the workload asked for something."""
        async with self._database.write() as connection:
            row = insert(connection, workloads).values(namespace=namespace, workload=workload, refreshes=0, seen=at)
            await connection.execute(row.on_conflict_do_update(index_elements=_KEY, set_={"seen": at}))

    @retried
    async def see_all(self, seen: Collection[tuple[str, str]], at: datetime) -> None:
        """Record that these asked for something by then. In one order, so that nobody waits in a circle."""
        rows = [
            {"namespace": namespace, "workload": name, "refreshes": 0, "seen": at} for namespace, name in sorted(seen)
        ]
        later = or_(workloads.c.seen.is_(None), workloads.c.seen < at)
        async with self._database.write() as connection:
            for start in range(0, len(rows), _BATCH):
                row = insert(connection, workloads).values(rows[start : start + _BATCH])
                await connection.execute(row.on_conflict_do_update(index_elements=_KEY, set_={"seen": at}, where=later))

    async def unseen(self, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Workloads that were not seen, pinned, refreshed or held since then."""
        pinned = select(pins.c.namespace, pins.c.workload).group_by(pins.c.namespace, pins.c.workload)
        last = pinned.having(func.max(pins.c.created) < before).subquery()
        same = and_(workloads.c.namespace == last.c.namespace, workloads.c.workload == last.c.workload)
        with_pins = select(last.c.namespace, last.c.workload).outerjoin(workloads, same)
        pinned_too = exists().where(pins.c.namespace == workloads.c.namespace, pins.c.workload == workloads.c.workload)
        without = select(workloads.c.namespace, workloads.c.workload).where(~pinned_too)
        idle = _idle(before)
        query = with_pins.where(or_(workloads.c.namespace.is_(None), idle)).union_all(without.where(idle)).limit(limit)
        async with self._database.read() as connection:
            return [(namespace, workload) for namespace, workload in await connection.execute(query)]

    @retried
    async def forget(self, namespace: str, workload: str, before: datetime) -> bool:
        """Forget the workload and its pins, unless it came back since then."""
        its_pins = and_(pins.c.namespace == namespace, pins.c.workload == workload)
        its_row = and_(workloads.c.namespace == namespace, workloads.c.workload == workload)
        async with self._database.write() as connection:
            # Its row is what whoever sees it again waits for; it may have had none.
            row = insert(connection, workloads).values(namespace=namespace, workload=workload, refreshes=0)
            await connection.execute(row.on_conflict_do_nothing())
            idle = select(workloads.c.namespace).where(its_row, _idle(before)).with_for_update()
            if (await connection.execute(idle)).first() is None:
                return False
            newest = (await connection.execute(select(func.max(pins.c.created)).where(its_pins))).scalar()
            if newest is not None and newest >= before:
                return False
            await connection.execute(delete(pins).where(its_pins))
            await connection.execute(delete(workloads).where(its_row))
        return True


def _idle(before: datetime) -> Any:
    times = (workloads.c.seen, workloads.c.refreshed_at, workloads.c.hold_at)
    return and_(*(or_(time.is_(None), time < before) for time in times))


def _record(row: Row[Any]) -> WorkloadRecord:
    hold = None if row.hold_lock is None else Hold(row.hold_lock, row.hold_at)
    return WorkloadRecord(row.namespace, row.workload, row.refreshes, row.refreshed_at, hold)
