"""Pins: (namespace, workload, revision, key) → locks. Who writes first is decided by unique constraints."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row, Select, and_, literal, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.content import Digest
from storage.errors import StorageError
from storage.metadata.cursors import behind, read_cursor, write_cursor
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import lock_namespaces, locks, pin_extensions, pins
from storage.records import Page, PinRecord


class SqlPinStore:
    """Pins in a database (storage.protocols.PinStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, workload: str, revision: str, key: str) -> PinRecord | None:
        """The revision's pin for the key."""
        async with self._database.read() as connection:
            return await _one(connection, select(pins).where(_is(namespace, workload, revision, key)))

    async def newest(self, namespace: str, workload: str, key: str, after: datetime | None) -> PinRecord | None:
        """The newest pin of any revision for the key, made after that time, that is not stale."""
        query = select(pins).where(
            pins.c.namespace == namespace, pins.c.workload == workload, pins.c.key == key, pins.c.stale.is_(False)
        )
        if after is not None:
            query = query.where(pins.c.created > after)
        async with self._database.read() as connection:
            return await _one(connection, query.order_by(pins.c.created.desc(), pins.c.id.desc()).limit(1))

    @retried
    async def add(self, pin: PinRecord) -> PinRecord:
        """Write the pin, its extensions with it, unless there is one; returns the one that stands.

        Raises:
            StorageError: a lock of the pin is not here.
        """
        async with self._database.write() as connection:
            statement = insert(connection, pins).values(
                namespace=pin.namespace,
                workload=pin.workload,
                revision=pin.revision,
                key=pin.key,
                lock=pin.lock,
                created=pin.created,
                stale=pin.stale,
            )
            added = (await connection.execute(statement.on_conflict_do_nothing().returning(pins.c.id))).scalar()
            if added is not None:
                for position, (target, lock) in enumerate(pin.extensions):
                    await _extend(connection, added, position, target, lock)
                await _list(connection, pin.namespace, {pin.lock, *(lock for _, lock in pin.extensions)})
            return await _standing(connection, pin)

    @retried
    async def extend(self, pin: PinRecord, target: str, lock: Digest) -> PinRecord:
        """Add a lock for one more target class if the pin still has the extensions of `pin`; returns what stands.

        Raises:
            StorageError: the pin or the lock is not here.
        """
        async with self._database.write() as connection:
            identity = (await connection.execute(select(pins.c.id).where(_is_that_of(pin)))).scalar()
            if identity is None:
                raise StorageError("a pin that is not here cannot be extended")
            await _extend(connection, identity, len(pin.extensions), target, lock)
            await _list(connection, pin.namespace, {lock})
            return await _standing(connection, pin)

    async def page(self, namespace: str | None, cursor: str | None, limit: int) -> Page[PinRecord]:
        """Pins, newest first. Raises InvalidCursor."""
        query = select(pins)
        if namespace is not None:
            query = query.where(pins.c.namespace == namespace)
        if cursor is not None:
            query = query.where(behind(pins.c.created, pins.c.id, read_cursor(cursor, _row_number)))
        query = query.order_by(pins.c.created.desc(), pins.c.id.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            found = list(records(await connection.execute(with_extensions(query))))
        if len(found) <= limit:
            return Page([record for _, record in found])
        last, record = found[limit - 1]
        return Page([record for _, record in found[:limit]], write_cursor(record.created, last))

    async def of_locks(self, digests: Collection[Digest]) -> dict[Digest, list[PinRecord]]:
        """The pins that hold each of these locks, newest first; an empty list where none does."""
        holders: dict[Digest, list[PinRecord]] = {digest: [] for digest in digests}
        # Put together, each by its own index: one OR of both would read all pins.
        pinned = select(pins.c.id).where(pins.c.lock.in_(holders))
        extended = select(pin_extensions.c.pin).where(pin_extensions.c.lock.in_(holders))
        query = select(pins).where(pins.c.id.in_(union(pinned, extended)))
        async with self._database.read() as connection:
            for _, record in records(await connection.execute(with_extensions(query))):
                for lock in {record.lock, *(lock for _, lock in record.extensions)} & holders.keys():
                    holders[lock].append(record)
        return holders


def _is(namespace: str, workload: str, revision: str, key: str) -> Any:
    return and_(
        pins.c.namespace == namespace, pins.c.workload == workload, pins.c.revision == revision, pins.c.key == key
    )


def _is_that_of(pin: PinRecord) -> Any:
    return _is(pin.namespace, pin.workload, pin.revision, pin.key)


def _row_number(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**63:
        raise ValueError("no row has this number")
    return number


async def _extend(connection: AsyncConnection, pin: int, position: int, target: str, lock: Digest) -> None:
    statement = insert(connection, pin_extensions).values(pin=pin, position=position, target=target, lock=lock)
    await connection.execute(statement.on_conflict_do_nothing())


async def _list(connection: AsyncConnection, namespace: str, digests: Collection[Digest]) -> None:
    """Have the locks listed in the namespace. In one order, so that nobody waits in a circle."""
    these = select(literal(namespace), locks.c.created, locks.c.digest).where(locks.c.digest.in_(digests))
    columns = [lock_namespaces.c.namespace, lock_namespaces.c.created, lock_namespaces.c.lock]
    statement = insert(connection, lock_namespaces).from_select(columns, these.order_by(locks.c.digest))
    await connection.execute(statement.on_conflict_do_nothing())


async def _standing(connection: AsyncConnection, pin: PinRecord) -> PinRecord:
    standing = await _one(connection, select(pins).where(_is_that_of(pin)))
    if standing is None:
        raise StorageError("the pin that was there a moment ago is gone")
    return standing


async def _one(connection: AsyncConnection, query: Select[Any]) -> PinRecord | None:
    for _, record in records(await connection.execute(with_extensions(query))):
        return record
    return None


def with_extensions(query: Select[Any]) -> Select[Any]:
    """These pins and their extensions in one read: a row for each extension, or one without."""
    chosen = query.subquery()
    return (
        select(chosen, pin_extensions.c.target, pin_extensions.c.lock.label("extension"))
        .outerjoin(pin_extensions, pin_extensions.c.pin == chosen.c.id)
        .order_by(chosen.c.created.desc(), chosen.c.id.desc(), pin_extensions.c.position)
    )


def records(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, PinRecord]]:
    """The pins that `with_extensions` read, each with its row's number."""
    for identity, group in groupby(rows, key=lambda row: row.id):
        first, *others = group
        extensions = tuple((row.target, row.extension) for row in (first, *others) if row.target is not None)
        yield (
            identity,
            PinRecord(
                namespace=first.namespace,
                workload=first.workload,
                revision=first.revision,
                key=first.key,
                lock=first.lock,
                created=first.created,
                stale=first.stale,
                extensions=extensions,
            ),
        )
