"""Which wheel was built of a source distribution."""

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import select

from storage.metadata.contents import claimed
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import builds
from storage.records import BuildRecord, Claims


class SqlBuildStore:
    """Builds in a database (storage.protocols.BuildStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, identifiers: Collection[str]) -> dict[str, BuildRecord]:
        """Those of the builds that there are, by their ids."""
        if not identifiers:
            return {}
        async with self._database.read() as connection:
            rows = await connection.execute(select(builds).where(builds.c.id.in_(identifiers)))
            return {row.id: BuildRecord(**row._mapping) for row in rows}

    @retried
    async def add(self, build: BuildRecord, claims: Claims) -> BuildRecord | None:
        """Keep the record unless there is one; returns the one that stands, None where its wheel is not as claimed."""
        async with self._database.write() as connection:
            if not await claimed(connection, {build.wheel: claims[build.wheel]}):
                return None
            await connection.execute(insert(connection, builds).values(asdict(build)).on_conflict_do_nothing())
            row = (await connection.execute(select(builds).where(builds.c.id == build.id))).one()
        return BuildRecord(**row._mapping)
