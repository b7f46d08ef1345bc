"""Which namespaces have a lock, or a content."""

from collections.abc import Collection

from sqlalchemy import and_, exists, select

from storage.content import Digest
from storage.metadata.database import Database
from storage.metadata.tables import bundle_parts, bundles, lock_namespaces

MOST_LOCKS = 100


class SqlAccessStore:
    """Which namespaces have what, in a database (storage.protocols.AccessStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has_pinned(self, namespaces: Collection[str], lock: Digest) -> bool:
        """Whether one of the namespaces ever pinned the lock."""
        here = and_(lock_namespaces.c.namespace.in_(namespaces), lock_namespaces.c.lock == lock)
        async with self._database.read() as connection:
            return bool((await connection.execute(select(exists().where(here)))).scalar())

    async def has_content(self, namespaces: Collection[str], content: Digest) -> bool:
        """Whether it is part of a bundle of a lock that one of the namespaces ever pinned."""
        query = (
            select(bundle_parts.c.part)
            .join(bundles, bundles.c.digest == bundle_parts.c.bundle)
            .join(lock_namespaces, lock_namespaces.c.lock == bundles.c.lock)
            .where(bundle_parts.c.part == content, lock_namespaces.c.namespace.in_(namespaces))
        )
        async with self._database.read() as connection:
            return bool((await connection.execute(select(query.exists()))).scalar())

    async def locks_with(self, content: Digest) -> list[Digest]:
        """The locks of bundles that it is part of, in order; at most 100."""
        query = (
            select(bundles.c.lock)
            .distinct()
            .join(bundle_parts, bundle_parts.c.bundle == bundles.c.digest)
            .where(bundle_parts.c.part == content)
            .order_by(bundles.c.lock)
            .limit(MOST_LOCKS)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())
