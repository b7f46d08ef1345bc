"""Locks by digest, and which key was answered with which lock."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, Select, exists, select, union_all

from storage.content import Digest
from storage.metadata.cursors import behind, read_cursor, write_cursor
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.leases import require
from storage.metadata.tables import lock_namespaces, lock_packages, locks, pin_extensions, pins, resolutions
from storage.records import Lease, LockFilter, LockRecord, LockSummary, Page, Resolution

MOST_RESOLUTIONS = 100
_SUMMARY = (locks.c.digest, locks.c.created, locks.c.requirements, locks.c.targets, locks.c.package_count)


class SqlLockStore:
    """Locks in a database (storage.protocols.LockStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def add(self, lock: LockRecord) -> None:
        """Keep the lock; one that is there stays as it was."""
        row = {
            "digest": lock.digest,
            "created": lock.created,
            "requirements": lock.requirements,
            "targets": lock.targets,
            "package_count": lock.package_count,
            "content": lock.content,
        }
        packages = [
            {"lock": lock.digest, "position": position, "name": name, "version": version, "created": lock.created}
            for position, (name, version) in enumerate(lock.packages)
        ]
        async with self._database.write() as connection:
            statement = insert(connection, locks).values(row).on_conflict_do_nothing().returning(locks.c.digest)
            added = (await connection.execute(statement)).first()
            if added and packages:
                await connection.execute(lock_packages.insert(), packages)

    async def get(self, digest: Digest) -> LockRecord | None:
        """The lock, whole."""
        async with self._database.read() as connection:
            found = await connection.execute(select(locks).where(locks.c.digest == digest))
            row = found.mappings().first()
            if row is None:
                return None
            packages = await connection.execute(
                select(lock_packages.c.name, lock_packages.c.version)
                .where(lock_packages.c.lock == digest)
                .order_by(lock_packages.c.position)
            )
            return LockRecord(**_fields(row), packages=tuple((name, version) for name, version in packages))

    async def page(self, where: LockFilter, cursor: str | None, limit: int) -> Page[LockSummary]:
        """Locks, newest first. Raises InvalidCursor."""
        chosen, created, digest = _matching(where)
        if cursor is not None:
            chosen = chosen.where(behind(created, digest, read_cursor(cursor, Digest)))
        # Cut before the locks are read: of a lock that is not shown, nothing but the index is.
        shown = chosen.order_by(created.desc(), digest.desc()).limit(limit + 1).subquery()
        query = select(*_SUMMARY).join(shown, shown.c[digest.name] == locks.c.digest)
        query = query.order_by(locks.c.created.desc(), locks.c.digest.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        items = [LockSummary(**_fields(row)) for row in rows[:limit]]
        return Page(items, write_cursor(items[-1].created, items[-1].digest) if len(rows) > limit else None)

    @retried
    async def add_resolution(self, resolution: Resolution, lease: Lease | None = None) -> None:
        """Record that the key was answered with the lock at that time; the same pair again renews the time.

        Raises:
            LeaseLost: a lease was named and is not held any more; nothing was written.
        """
        async with self._database.write() as connection:
            await require(connection, lease)
            statement = insert(connection, resolutions).values(
                key=resolution.key, lock=resolution.lock, targets=resolution.targets, at=resolution.at
            )
            # A late writer does not turn the time back.
            renewed = statement.on_conflict_do_update(
                index_elements=[resolutions.c.key, resolutions.c.lock],
                set_={"at": statement.excluded.at, "targets": statement.excluded.targets},
                where=resolutions.c.at < statement.excluded.at,
            )
            await connection.execute(renewed)

    async def resolutions(self, key: str) -> list[Resolution]:
        """What the key was answered with, newest first; at most 100."""
        query = (
            select(resolutions)
            .where(resolutions.c.key == key)
            .order_by(resolutions.c.at.desc(), resolutions.c.lock.desc())
            .limit(MOST_RESOLUTIONS)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [Resolution(row.key, row.lock, tuple(row.targets), row.at) for row in rows]

    async def keys_of(self, digest: Digest) -> list[str]:
        """The keys that were answered with this lock, in order."""
        query = select(resolutions.c.key).where(resolutions.c.lock == digest).order_by(resolutions.c.key)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())


def _fields(row: RowMapping) -> dict[str, Any]:
    return {**row, "requirements": tuple(row["requirements"]), "targets": tuple(row["targets"])}


def _matching(where: LockFilter) -> tuple[Select[Any], Column[datetime], Column[Digest]]:
    """When the locks were made, and their digests: a query, each lock once, and the columns that it is in order of."""
    if where.namespace is not None:
        found = lock_namespaces.c
        query = select(found.created, found.lock).where(found.namespace == where.namespace, _held())
        if where.package is not None:
            # Joined by both, so that either index is read in the order of the list.
            same = (lock_packages.c.created == found.created) & (lock_packages.c.lock == found.lock)
            query = query.join(lock_packages, same).where(lock_packages.c.name == where.package).distinct()
        return query, found.created, found.lock
    if where.package is not None:
        found = lock_packages.c
        return (
            select(found.created, found.lock).where(found.name == where.package).distinct(),
            found.created,
            found.lock,
        )
    return select(locks.c.created, locks.c.digest), locks.c.created, locks.c.digest


def _held() -> ColumnElement[bool]:
    """Whether a pin of the namespace still holds the lock. One EXISTS of both ways, which is asked lock by lock: two
    would be answered for all the pins there are."""
    here = pins.c.namespace == lock_namespaces.c.namespace
    pinned = select(pins.c.id).where(pins.c.lock == lock_namespaces.c.lock, here)
    extended = select(pins.c.id).join(pin_extensions).where(pin_extensions.c.lock == lock_namespaces.c.lock, here)
    return exists(union_all(*(query.correlate(lock_namespaces) for query in (pinned, extended))))
