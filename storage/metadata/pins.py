"""Pins: (namespace, workload, revision, key) → locks. Who writes first is decided by unique constraints."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Subquery,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    union,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.content import Digest
from storage.errors import StorageError
from storage.metadata.artifacts import BUNDLE
from storage.metadata.cursors import behind, read_cursor, write_cursor
from storage.metadata.database import Database, aggregated, insert
from storage.metadata.failures import retried
from storage.metadata.tables import bundles, lock_namespaces, locks, pin_extensions, pins, workloads
from storage.records import BundleRecord, Holders, Page, PinName, PinRecord, Standing

_SHOWN = 3
"""Pins of a lock that a list of locks shows."""
_COUNTED = 1000
"""Pins of a lock that are counted; more are told by the list of pins."""


class SqlPinStore:
    """Pins in a database (storage.protocols.PinStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, workload: str, revision: str, key: str) -> PinRecord | None:
        """The revision's pin for the key."""
        async with self._database.read() as connection:
            return await _one(connection, select(pins).where(_is(namespace, workload, revision, key)))

    async def standing(self, name: PinName, refreshes: bool, key: str, target: str, toolchain: str) -> Standing | None:
        """What the revision's pin for the key says for the target class."""
        revision: Any = name.revision
        if refreshes:
            same = and_(workloads.c.namespace == name.namespace, workloads.c.workload == name.workload)
            counted = func.coalesce(select(workloads.c.refreshes).where(same).scalar_subquery(), 0)
            revision = literal(name.revision) + cast(counted, String)
        # An extension is written for a target class that the first lock does not cover.
        lock = func.coalesce(pin_extensions.c.lock, pins.c.lock, type_=pins.c.lock.type)
        extension = and_(pin_extensions.c.pin == pins.c.id, pin_extensions.c.target == target)
        workload = and_(workloads.c.namespace == pins.c.namespace, workloads.c.workload == pins.c.workload)
        bundle = and_(bundles.c.lock == lock, bundles.c.target == target, bundles.c.toolchain == toolchain)
        chosen = (pins.c.revision, pins.c.stale, lock.label("chosen"), workloads.c.seen)
        query = (
            select(*chosen, pin_extensions.c.target.label("extended"), locks.c.targets.label("covered"), *BUNDLE)
            .join_from(pins, locks, locks.c.digest == pins.c.lock)
            .outerjoin(workloads, workload)
            .outerjoin(pin_extensions, extension)
            .outerjoin(bundles, bundle)
            .where(_is(name.namespace, name.workload, revision, key))
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None or (row.extended is None and target not in row.covered):
            return None
        found = {column.name: row._mapping[column] for column in BUNDLE}
        return Standing(
            pin=replace(name, revision=row.revision),
            lock=row.chosen,
            stale=row.stale,
            seen=row.seen,
            bundle=BundleRecord(**{**found, "warnings": tuple(found["warnings"])}) if found["digest"] else None,
        )

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

    async def page(
        self, namespace: str | None, cursor: str | None, limit: int, *, lock: Digest | None = None
    ) -> Page[PinRecord]:
        """Pins, newest first; those of a namespace, those that hold a lock. Raises InvalidCursor."""

        def cut(query: Select[Any]) -> Select[Any]:
            if namespace is not None:
                query = query.where(pins.c.namespace == namespace)
            if cursor is not None:
                query = query.where(behind(pins.c.created, pins.c.id, read_cursor(cursor, _row_number)))
            return query.order_by(pins.c.created.desc(), pins.c.id.desc()).limit(limit + 1)

        query = cut(select(pins))
        if lock is not None:
            # Put together, each by its own index: one OR of both would read all pins.
            pinned, extended = (cut(held) for held in _holding(lock))
            query = cut(select(pins).where(pins.c.id.in_(union(_rows(pinned), _rows(extended)))))
        async with self._database.read() as connection:
            found = list(records(await connection.execute(with_extensions(query))))
        if len(found) <= limit:
            return Page([record for _, record in found])
        last, record = found[limit - 1]
        return Page([record for _, record in found[:limit]], write_cursor(record.created, last))

    async def holders(
        self, digests: Collection[Digest], namespaces: Collection[str] | None = None
    ) -> dict[Digest, Holders]:
        """Which pins (of these namespaces; None: of all) hold each of these locks. However many they are, a few rows of
        each lock are read, and as many entries of an index as are counted."""
        async with self._database.read() as connection:
            newest = aggregated(connection, _newest(namespaces))
            query = select(locks.c.digest, _count(namespaces).label("held"), newest.label("newest"))
            rows = (await connection.execute(query.where(locks.c.digest.in_(digests)))).all()
        held = {}
        for row in rows:
            latest = sorted({tuple(pin) for pin in row.newest or ()}, reverse=True)[:_SHOWN]
            held[row.digest] = Holders(min(row.held, _COUNTED), tuple(PinName(*name) for _, _, *name in latest))
        return {digest: held.get(digest, Holders(0, ())) for digest in digests}

    async def holds(self, lock: Digest, key: str) -> bool:
        """Whether a pin for the key holds the lock."""
        held = (exists(query.where(pins.c.key == key)) for query in _holding(lock))
        async with self._database.read() as connection:
            return bool((await connection.execute(select(or_(*held)))).scalar())


def _holding(lock: Any) -> tuple[Select[Any], Select[Any]]:
    """Pins that hold the lock: as their first one, and for a further target class."""
    extended = select(pins).join(pin_extensions, pin_extensions.c.pin == pins.c.id).where(pin_extensions.c.lock == lock)
    return select(pins).where(pins.c.lock == lock), extended


def _rows(query: Select[Any]) -> Select[Any]:
    """The numbers of the rows that a query is cut to."""
    return select(query.with_only_columns(pins.c.id).subquery().c.id)


def _of(query: Select[Any], namespaces: Collection[str] | None) -> Select[Any]:
    return query if namespaces is None else query.where(pins.c.namespace.in_(namespaces))


def _newest(namespaces: Collection[str] | None) -> Subquery:
    """The newest few pins that hold the lock of the outer query, of either kind: their places in a list, and names."""
    columns = (pins.c.created, pins.c.id, pins.c.namespace, pins.c.workload, pins.c.revision)
    holding = (_of(query, namespaces) for query in _holding(locks.c.digest))
    first, further = (query.with_only_columns(*columns) for query in holding)
    first = first.order_by(pins.c.created.desc(), pins.c.id.desc()).limit(_SHOWN)
    # By the index that there is: rows are numbered in about the order of their times.
    further = further.order_by(pin_extensions.c.pin.desc()).limit(_SHOWN)
    return union_all(*(select(query.correlate(locks).subquery()) for query in (first, further))).subquery()


def _count(namespaces: Collection[str] | None) -> ColumnElement[int]:
    """How many pins hold the lock of the outer query, as far as they are counted."""
    first = _of(select(pins.c.id).where(pins.c.lock == locks.c.digest), namespaces)
    further = select(pin_extensions.c.pin).where(pin_extensions.c.lock == locks.c.digest)
    if namespaces is not None:
        further = _of(further.join(pins, pins.c.id == pin_extensions.c.pin), namespaces)
    counted = (query.correlate(locks).limit(_COUNTED).subquery() for query in (first, further))
    one, other = (select(func.count()).select_from(rows).scalar_subquery() for rows in counted)
    return one + other


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
