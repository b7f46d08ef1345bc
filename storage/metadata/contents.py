"""Which blobs references need, and how nobody comes to rely on a blob that is just being removed.

Blobs and rows are not changed in one transaction, so a row stands for each blob: it comes before the blob and goes
after it, and its lock decides who is first. Whoever relies on a blob claims it (`claim`) before looking whether it is
there: the claim takes its mark away, or waits for a removal under way and then finds it gone. Each time that a row is
made, or a collection lets go of its blob, it gets a new incarnation; a reference is written only if every content that
it needs is still in the incarnation that was claimed (`claimed`), in the same transaction. So however long the work
took in between, and whatever the clocks say, no reference is written to what was removed meanwhile.

    resolve     claim ───────────── look, write the blob ─────────────── write the reference, if still as claimed
    collection         mark … grace … drop references, new incarnation ─ lock, delete the blob, delete the row

Killed at any point this leaves blobs and rows that nothing needs, which the next collection removes.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, or_, select, union, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.content import Digest
from storage.metadata.database import Database, insert
from storage.metadata.failures import retried
from storage.metadata.tables import builds, bundle_parts, bundles, contents, layers
from storage.records import Claims

_BATCH = 500


class _Gathering:
    """Contents that are to be claimed in one transaction, and that transaction."""

    def __init__(self) -> None:
        self.digests: set[Digest] = set()
        self.claiming: asyncio.Task[dict[Digest, int]]


class SqlContentStore:
    """What references need, in a database (storage.protocols.ContentStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gathering: _Gathering | None = None

    async def claim(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Claim these contents, there or not as yet.

        The wheels of a lock are claimed each by itself and all at about the same time. So those that come while one
        transaction waits for its turn are claimed in it together; it is nobody's own, and goes on without whoever left.
        """
        if not digests:
            return {}
        gathering = self._gathering
        if gathering is None:
            gathering = self._gathering = _Gathering()
            gathering.claiming = asyncio.create_task(self._claim(gathering))
        gathering.digests.update(digests)
        claims = await asyncio.shield(gathering.claiming)
        return {digest: claims[digest] for digest in digests}

    @retried
    async def _claim(self, gathering: "_Gathering") -> dict[Digest, int]:
        claims: dict[Digest, int] = {}
        try:
            async with self._database.write() as connection:
                self._close(gathering)
                for batch in batches(sorted(gathering.digests)):
                    await _make_rows(connection, batch)
                    claims.update(await _incarnations(connection, batch))
        finally:
            self._close(gathering)
        return claims

    def _close(self, gathering: "_Gathering") -> None:
        """Who comes from now on is too late for it."""
        if self._gathering is gathering:
            self._gathering = None

    async def needed(self, after: Digest | None, limit: int) -> list[Digest]:
        """Contents that records need, in the order of their digests, from behind that one."""
        columns = (
            (bundle_parts.c.part, exists().where(bundles.c.digest == bundle_parts.c.bundle)),
            (bundles.c.digest, None),
            (layers.c.digest, None),
            (layers.c.listing, None),
            (builds.c.wheel, None),
        )
        # Each is cut before they are put together: else each page would cost as much as all.
        cut = (_ordered(column, after, limit, where).subquery() for column, where in columns)
        query = union(*(select(part.c.digest) for part in cut)).order_by("digest").limit(limit)
        async with self._database.read() as connection:
            return [Digest(found) for found in (await connection.execute(query)).scalars()]

    async def is_needed(self, digest: Digest) -> bool:
        """Whether a record needs the content."""
        needing = (_bundles_with(digest), _layers_with(digest), builds.c.wheel == digest)
        query = select(or_(*(exists().where(each) for each in needing)))
        async with self._database.read() as connection:
            return bool((await connection.execute(query)).scalar())

    async def bundles(self, after: Digest | None, limit: int) -> list[Digest]:
        """Bundles that there are records of, in the order of their digests, from behind that one."""
        async with self._database.read() as connection:
            return list((await connection.execute(_ordered(bundles.c.digest, after, limit))).scalars())

    async def unknown(self, digests: Collection[Digest]) -> set[Digest]:
        """Those among them that there is no row of."""
        known: set[Digest] = set()
        for batch in batches(digests):
            async with self._database.read() as connection:
                query = select(contents.c.digest).where(contents.c.digest.in_(batch))
                known.update((await connection.execute(query)).scalars())
        return set(digests) - known

    @asynccontextmanager
    async def dropping(self, digest: Digest) -> AsyncIterator[None]:
        """Drop every record that needs the content; what was claimed before is refused after the block."""
        async with self._database.write() as connection:
            await _make_rows(connection, [digest])
            await _incarnations(connection, [digest])
            await connection.execute(delete(bundles).where(_bundles_with(digest)))
            await connection.execute(delete(layers).where(_layers_with(digest)))
            await connection.execute(delete(builds).where(builds.c.wheel == digest))
            await renew(connection, [digest])
            yield


async def claimed(connection: AsyncConnection, claims: Claims) -> bool:
    """Whether these contents are as they were claimed; if so they stay, unmarked, until this transaction ends."""
    for batch in batches(sorted(claims)):
        if await _incarnations(connection, batch) != {digest: claims[digest] for digest in batch}:
            return False
        marked = update(contents).where(contents.c.digest.in_(batch), contents.c.marked.is_not(None))
        await connection.execute(marked.values(marked=None))
    return True


async def renew(connection: AsyncConnection, digests: Collection[Digest]) -> None:
    """A new incarnation for each of these: claims from before are void."""
    for digest in digests:
        statement = update(contents).where(contents.c.digest == digest).values(incarnation=new_incarnation())
        await connection.execute(statement)


def new_incarnation() -> int:
    """A number that no row of the same content ever had."""
    return secrets.randbits(63)


def batches(digests: Iterable[Digest], size: int = _BATCH) -> Iterator[list[Digest]]:
    """The digests, a statement's worth at a time."""
    rest = iter(digests)
    while batch := list(islice(rest, size)):
        yield batch


async def _make_rows(connection: AsyncConnection, digests: list[Digest]) -> None:
    """See to it that there is a row for each, unmarked. In one order, so that nobody waits in a circle."""
    rows = [{"digest": digest, "incarnation": new_incarnation()} for digest in digests]
    statement = insert(connection, contents).values(rows)
    unmarked = statement.on_conflict_do_update(
        index_elements=[contents.c.digest], set_={"marked": None}, where=contents.c.marked.is_not(None)
    )
    await connection.execute(unmarked)


async def _incarnations(connection: AsyncConnection, digests: list[Digest]) -> dict[Digest, int]:
    """The incarnations of these contents, which stay as they are until the transaction ends."""
    query = select(contents.c.digest, contents.c.incarnation).where(contents.c.digest.in_(digests))
    rows = await connection.execute(query.order_by(contents.c.digest).with_for_update())
    return {row.digest: row.incarnation for row in rows}


def _bundles_with(digest: Digest) -> ColumnElement[bool]:
    having = select(bundle_parts.c.bundle).where(bundle_parts.c.part == digest)
    return or_(bundles.c.digest == digest, bundles.c.digest.in_(having))


def _layers_with(digest: Digest) -> ColumnElement[bool]:
    return or_(layers.c.digest == digest, layers.c.listing == digest)


def _ordered(column: Any, after: Digest | None, limit: int, where: ColumnElement[bool] | None = None) -> Select[Any]:
    query = select(column.label("digest")).distinct().order_by(column).limit(limit)
    if after is not None:
        query = query.where(column > after)
    return query if where is None else query.where(where)
