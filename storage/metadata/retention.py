"""What is kept of the blobs. How claims and removals keep out of each other's way: storage/metadata/contents.py."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Select, delete, func, or_, select, tuple_, union, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.content import Digest
from storage.metadata.contents import batches, new_incarnation, renew
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import builds, bundle_parts, bundles, contents, layers, pin_extensions, pins, workloads
from storage.records import BlobInfo, ContentRecord, Keep

_COLUMNS = (contents.c.digest, contents.c.size, contents.c.marked)


class SqlRetentionStore:
    """What is kept, in a database (storage.protocols.RetentionStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @retried
    async def adopt(self, blobs: Collection[BlobInfo], at: datetime) -> int:
        """Learn the sizes of these blobs; those that are unknown are marked. Returns how many were."""
        sizes = {blob.digest: blob.size for blob in blobs}
        async with self._database.read() as connection:
            query = select(contents.c.digest, contents.c.size).where(contents.c.digest.in_(sizes))
            known = {row.digest: row.size for row in await connection.execute(query)}
        news = [digest for digest in sorted(sizes) if known.get(digest) != sizes[digest]]
        if news:
            async with self._database.write() as connection:
                rows = [
                    {"digest": digest, "incarnation": new_incarnation(), "size": sizes[digest], "marked": at}
                    for digest in news
                ]
                statement = insert(connection, contents).values(rows)
                await connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[contents.c.digest], set_={"size": statement.excluded.size}
                    )
                )
        return len(sizes.keys() - known.keys())

    async def held(self, keep: Keep) -> set[Digest]:
        """The contents that something holds. Read piece by piece: removals look again."""
        async with self._database.read() as connection:
            held_bundles = list((await connection.execute(_held_bundles(keep))).scalars())
        parts: set[Digest] = set()
        for batch in batches(held_bundles):
            async with self._database.read() as connection:
                query = select(bundle_parts.c.part).where(bundle_parts.c.bundle.in_(batch)).distinct()
                parts.update((await connection.execute(query)).scalars())
        async with self._database.read() as connection:
            held = parts | set((await connection.execute(select(builds.c.wheel))).scalars())
        for batch in batches(parts):
            async with self._database.read() as connection:
                query = select(layers.c.listing, layers.c.wheel).where(layers.c.digest.in_(batch))
                for row in await connection.execute(query):
                    held.update(row)
        return held

    async def page(self, after: Digest | None, limit: int) -> list[ContentRecord]:
        """All contents, in the order of their digests, from behind that one."""
        query = select(*_COLUMNS).order_by(contents.c.digest).limit(limit)
        if after is not None:
            query = query.where(contents.c.digest > after)
        async with self._database.read() as connection:
            return [ContentRecord(*row) for row in await connection.execute(query)]

    @retried
    async def mark(self, digests: Collection[Digest], at: datetime | None) -> None:
        """Mark those that are not, or (None) take their marks away."""
        changing = contents.c.marked.is_not(None) if at is None else contents.c.marked.is_(None)
        async with self._database.write() as connection:
            for batch in batches(sorted(digests)):
                free = await _lock(connection, batch, changing)
                statement = update(contents).where(contents.c.digest.in_([record.digest for record in free]))
                await connection.execute(statement.values(marked=at))

    @retried
    async def release(self, digests: Collection[Digest], keep: Keep, marked_by: datetime) -> list[Digest]:
        """Drop the records that need these contents, as far as they may go. Returns those that no record needs now."""
        async with self._database.write() as connection:
            free = await _lock(connection, digests, contents.c.marked <= marked_by)
            held = await _among(connection, [record.digest for record in free], keep)
            going = [record.digest for record in free if record.digest not in held]
            having = select(bundle_parts.c.bundle).where(bundle_parts.c.part.in_(going))
            # A use waits for no content's lock: it is in time, and spares the bundle, or finds it gone.
            unused = bundles.c.used <= keep.used_after
            await connection.execute(delete(bundles).where(bundles.c.digest.in_(having), unused))
            needed = select(bundle_parts.c.part).join(bundles, bundles.c.digest == bundle_parts.c.bundle)
            left = set((await connection.execute(needed.where(bundle_parts.c.part.in_(going)))).scalars())
            gone = [digest for digest in going if digest not in left]
            needing = or_(layers.c.digest.in_(gone), layers.c.listing.in_(gone))
            await connection.execute(delete(layers).where(needing))
            await renew(connection, gone)
        return gone

    @asynccontextmanager
    async def removing(self, digests: Collection[Digest], marked_by: datetime) -> AsyncIterator[list[ContentRecord]]:
        """Those of them that still bear a mark that old; their rows are deleted at the end of the block."""
        async with self._database.write() as connection:
            going = await _lock(connection, digests, contents.c.marked <= marked_by)
            yield going
            gone = [record.digest for record in going]
            await connection.execute(delete(bundle_parts).where(bundle_parts.c.bundle.in_(gone)))
            await connection.execute(delete(contents).where(contents.c.digest.in_(gone)))


async def _lock(connection: AsyncConnection, digests: Collection[Digest], where: Any) -> list[ContentRecord]:
    """Those of the contents that nobody else is at work on, kept so until the transaction ends."""
    query = select(*_COLUMNS).where(contents.c.digest.in_(digests), where).with_for_update(skip_locked=True)
    return [ContentRecord(*row) for row in await connection.execute(query)]


async def _among(connection: AsyncConnection, digests: list[Digest], keep: Keep) -> set[Digest]:
    """Those of the contents that something holds just now."""
    holders = union_all(
        select(bundle_parts.c.part.label("content"), bundle_parts.c.bundle).where(bundle_parts.c.part.in_(digests)),
        *(
            select(column, bundle_parts.c.bundle)
            .join(bundle_parts, bundle_parts.c.part == layers.c.digest)
            .where(column.in_(digests))
            for column in (layers.c.listing, layers.c.wheel)
        ),
    ).cte("holders")
    query = select(holders.c.content).where(holders.c.bundle.in_(_held_bundles(keep, select(holders.c.bundle))))
    built = select(builds.c.wheel).where(builds.c.wheel.in_(digests))
    return set((await connection.execute(union(query, built))).scalars())


def _held_bundles(keep: Keep, among: Select[tuple[Digest]] | None = None) -> CompoundSelect[Any]:
    """The bundles that something holds, `among` these or (None) all: those in use, and of each held lock and target
    class the one made last, which is the current toolchain's."""
    made_last = func.row_number().over(
        partition_by=[bundles.c.lock, bundles.c.target], order_by=[bundles.c.created.desc(), bundles.c.toolchain]
    )
    concerned = None if among is None else select(bundles.c.lock).where(bundles.c.digest.in_(among))
    made = select(bundles.c.digest, made_last.label("place")).where(bundles.c.lock.in_(_held_locks(keep, concerned)))
    used = select(bundles.c.digest).where(bundles.c.used > keep.used_after)
    if concerned is not None and among is not None:
        made = made.where(bundles.c.lock.in_(concerned))
        used = used.where(bundles.c.digest.in_(among))
    newest = made.subquery()
    return union(select(newest.c.digest).where(newest.c.place == 1), used)


def _held_locks(keep: Keep, concerned: Select[tuple[Digest]] | None) -> CompoundSelect[Any]:
    """The locks of pins of each workload's newest revisions, and those on hold. Where only some locks are concerned,
    only the revisions of workloads that have one of them are counted."""
    newest_first = [func.max(pins.c.created).desc(), func.max(pins.c.id).desc()]
    place = func.row_number().over(partition_by=[pins.c.namespace, pins.c.workload], order_by=newest_first)
    revisions = select(pins.c.namespace, pins.c.workload, pins.c.revision, place.label("place")).group_by(
        pins.c.namespace, pins.c.workload, pins.c.revision
    )
    if concerned is not None:
        extended = select(pin_extensions.c.pin).where(pin_extensions.c.lock.in_(concerned))
        having = select(pins.c.namespace, pins.c.workload).where(
            or_(pins.c.lock.in_(concerned), pins.c.id.in_(extended))
        )
        revisions = revisions.where(tuple_(pins.c.namespace, pins.c.workload).in_(having))
    ranked = revisions.subquery()
    kept = (
        select(pins.c.id, pins.c.lock)
        .join(
            ranked,
            (ranked.c.namespace == pins.c.namespace)
            & (ranked.c.workload == pins.c.workload)
            & (ranked.c.revision == pins.c.revision),
        )
        .where(ranked.c.place <= keep.revisions)
        .cte("kept")
    )
    return union(
        select(kept.c.lock),
        select(pin_extensions.c.lock).join(kept, kept.c.id == pin_extensions.c.pin),
        select(workloads.c.hold_lock).where(workloads.c.hold_lock.is_not(None)),
    )
