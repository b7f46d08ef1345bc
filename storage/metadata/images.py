"""Bundles as OCI clients ask for them."""

from sqlalchemy import exists, func, select

from storage.content import Digest
from storage.metadata.contents import claimed
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.pins import records, with_extensions
from storage.metadata.tables import bundle_parts, bundles, pins
from storage.records import Claims, PinRecord

MOST_LOCKS = 100
MOST_KEYS = 50


class SqlImageStore:
    """Images in a database (storage.protocols.ImageStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def locks_of(self, bundle: Digest) -> list[Digest]:
        """The locks that this bundle was made from, in order."""
        query = select(bundles.c.lock).distinct().where(bundles.c.digest == bundle)
        async with self._database.read() as connection:
            return list((await connection.execute(query.order_by(bundles.c.lock).limit(MOST_LOCKS))).scalars())

    async def newest_pins(self, namespace: str, workload: str) -> list[PinRecord]:
        """The newest pin for each of the workload's keys, newest first."""
        newest_first = pins.c.created.desc(), pins.c.id.desc()
        place = func.row_number().over(partition_by=pins.c.key, order_by=newest_first).label("place")
        ranked = select(pins.c.id, place).where(pins.c.namespace == namespace, pins.c.workload == workload).subquery()
        first = select(ranked.c.id).where(ranked.c.place == 1)
        query = select(pins).where(pins.c.id.in_(first)).order_by(*newest_first).limit(MOST_KEYS)
        async with self._database.read() as connection:
            return [record for _, record in records(await connection.execute(with_extensions(query)))]

    @retried
    async def attach(self, bundle: Digest, claims: Claims) -> bool:
        """Have these contents kept as long as the bundle is, if they are as claimed and it is there."""
        parts = [{"bundle": bundle, "part": part} for part in sorted(claims)]
        async with self._database.write() as connection:
            there = (await connection.execute(select(exists().where(bundles.c.digest == bundle)))).scalar()
            if not there or not await claimed(connection, claims):
                return False
            if parts:
                await connection.execute(insert(connection, bundle_parts).on_conflict_do_nothing(), parts)
        return True
