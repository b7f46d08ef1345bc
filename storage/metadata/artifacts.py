"""Which layer was built from a wheel, which bundle from a lock."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import select, update

from storage.content import Digest
from storage.metadata.contents import claimed
from storage.metadata.database import Database, insert, replace
from storage.metadata.failures import retried
from storage.metadata.tables import bundle_parts, bundles, layers
from storage.records import BundleRecord, Claims, LayerRecord

BUNDLE = [column for column in bundles.c if column.name != "used"]
"""What makes a BundleRecord."""


class SqlArtifactStore:
    """Layers and bundles in a database (storage.protocols.ArtifactStore)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def layer(self, wheel: Digest, python: str, toolchain: str) -> LayerRecord | None:
        """The layer of this wheel for this Python (`3.12`), built by this toolchain."""
        query = select(layers).where(
            layers.c.wheel == wheel, layers.c.python == python, layers.c.toolchain == toolchain
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else LayerRecord(**row._mapping)

    async def layer_by_diff_id(self, diff_id: Digest) -> LayerRecord | None:
        """A layer whose plain tar has this digest."""
        query = select(layers).where(layers.c.diff_id == diff_id).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else LayerRecord(**row._mapping)

    @retried
    async def add_layer(self, layer: LayerRecord, claims: Claims) -> bool:
        """Keep the record, if its contents are as claimed; the same key again replaces it."""
        async with self._database.write() as connection:
            if not await claimed(connection, {digest: claims[digest] for digest in (layer.digest, layer.listing)}):
                return False
            await replace(connection, layers, asdict(layer))
        return True

    async def bundle(self, lock: Digest, target: str, toolchain: str) -> BundleRecord | None:
        """The bundle of this lock for this target class."""
        query = select(*BUNDLE).where(
            bundles.c.lock == lock, bundles.c.target == target, bundles.c.toolchain == toolchain
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else BundleRecord(**{**row._mapping, "warnings": tuple(row.warnings)})

    @retried
    async def add_bundle(self, bundle: BundleRecord, claims: Claims) -> bool:
        """Keep the record, if its contents are as claimed; the same key again replaces it. Counts as a use."""
        parts = [{"bundle": bundle.digest, "part": part} for part in sorted({bundle.digest, *claims})]
        async with self._database.write() as connection:
            if not await claimed(connection, {part["part"]: claims[part["part"]] for part in parts}):
                return False
            await connection.execute(insert(connection, bundle_parts).on_conflict_do_nothing(), parts)
            await replace(connection, bundles, {**asdict(bundle), "used": bundle.created})
        return True

    @retried
    async def use(self, bundle: Digest, at: datetime) -> bool:
        """Record that the bundle is in use; False where there is no record of it (any more)."""
        async with self._database.write() as connection:
            used = await connection.execute(update(bundles).where(bundles.c.digest == bundle).values(used=at))
        return used.rowcount > 0
