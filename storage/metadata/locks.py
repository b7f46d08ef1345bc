"""Locks by digest, and which key was answered with which lock."""

from typing import Any

from sqlalchemy import RowMapping, Select, select, union

from storage.content import Digest
from storage.metadata.cursors import behind, read_cursor, write_cursor
from storage.metadata.database import Database, insert
from storage.metadata.tables import lock_packages, locks, pin_extensions, pins, resolutions
from storage.records import LockFilter, LockRecord, LockSummary, Page, Resolution

MOST_RESOLUTIONS = 100
_SUMMARY = (locks.c.digest, locks.c.created, locks.c.requirements, locks.c.targets, locks.c.package_count)


class SqlLockStore:
    """Locks in a database (storage.protocols.LockStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            {"lock": lock.digest, "position": position, "name": name, "version": version}
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
        query = _filtered(select(*_SUMMARY), where)
        if cursor is not None:
            query = query.where(behind(locks.c.created, locks.c.digest, read_cursor(cursor, Digest)))
        query = query.order_by(locks.c.created.desc(), locks.c.digest.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        items = [LockSummary(**_fields(row)) for row in rows[:limit]]
        return Page(items, write_cursor(items[-1].created, items[-1].digest) if len(rows) > limit else None)

    async def add_resolution(self, resolution: Resolution) -> None:
        """Record that the key was answered with the lock at that time; the same pair again renews the time."""
        async with self._database.write() as connection:
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


def _filtered(query: Select[Any], where: LockFilter) -> Select[Any]:
    if where.package is not None:
        query = query.where(
            locks.c.digest.in_(select(lock_packages.c.lock).where(lock_packages.c.name == where.package))
        )
    if where.namespace is not None:
        pinned = select(pins.c.lock).where(pins.c.namespace == where.namespace)
        extended = select(pin_extensions.c.lock).join(pins).where(pins.c.namespace == where.namespace)
        query = query.where(locks.c.digest.in_(union(pinned, extended)))
    return query
