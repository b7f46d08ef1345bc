"""Cold work that waits for a worker."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update

from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import jobs
from storage.records import JobRecord


class SqlJobStore:
    """Jobs in a database (storage.work_protocols.JobStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def put(self, job: JobRecord, most: int) -> bool:
        """Add the job, or let one that failed before `job.created` wait anew; False where `most` wait already."""
        async with self._database.write() as connection:
            waiting = select(func.count()).select_from(jobs).where(jobs.c.failed.is_(None), jobs.c.id != job.id)
            if (await connection.execute(waiting)).scalar_one() >= most:
                return False
            statement = insert(connection, jobs).values(asdict(job))
            anew = statement.on_conflict_do_update(
                index_elements=[jobs.c.id],
                set_={"failed": None, "problem": None, "created": job.created},
                where=jobs.c.failed < job.created,
            )
            await connection.execute(anew)
        return True

    async def get(self, identifier: str) -> JobRecord | None:
        """The job, waiting or failed; None where it is done."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == identifier))).first()
        return None if row is None else JobRecord(**row._mapping)

    async def waiting(self, limit: int) -> list[JobRecord]:
        """Jobs to do: the oldest of each namespace first, then the second of each, and so on."""
        turn = func.row_number().over(partition_by=jobs.c.namespace, order_by=jobs.c.created).label("turn")
        ranked = select(jobs, turn).where(jobs.c.failed.is_(None)).subquery()
        query = select(ranked).order_by(ranked.c.turn, ranked.c.created, ranked.c.id).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [JobRecord(**{name: value for name, value in row.items() if name != "turn"}) for row in rows]

    @retried
    async def done(self, identifier: str) -> None:
        """The job is done: forget it."""
        async with self._database.write() as connection:
            await connection.execute(delete(jobs).where(jobs.c.id == identifier))

    @retried
    async def fail(self, identifier: str, problem: dict[str, Any], at: datetime, forget: datetime) -> None:
        """The job failed, and how, for those who wait for it; what failed before `forget` is forgotten by the way."""
        async with self._database.write() as connection:
            await connection.execute(delete(jobs).where(jobs.c.failed < forget))
            await connection.execute(update(jobs).where(jobs.c.id == identifier).values(failed=at, problem=problem))
