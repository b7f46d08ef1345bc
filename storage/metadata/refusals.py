"""Refusals: how a set failed, remembered for a short while, so that one replica's failure is every replica's answer."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select

from storage.metadata.database import Database, replace
from storage.metadata.failures import retried
from storage.metadata.tables import refusals


class SqlRefusalStore:
    """Refusals in a database (storage.work_protocols.RefusalStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, question: str, now: datetime) -> dict[str, Any] | None:
        """How the question was refused, if that is still remembered."""
        statement = select(refusals.c.refusal).where(refusals.c.question == question, refusals.c.until > now)
        async with self._database.read() as connection:
            found: dict[str, Any] | None = (await connection.execute(statement)).scalar()
        return found

    @retried
    async def put(self, question: str, refusal: dict[str, Any], now: datetime, until: datetime) -> None:
        """Remember it until then; what is past its time is forgotten by the way."""
        async with self._database.write() as connection:
            await connection.execute(delete(refusals).where(refusals.c.until <= now))
            await replace(connection, refusals, {"question": question, "refusal": refusal, "until": until})
