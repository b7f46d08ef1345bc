"""Which layer was built from a wheel, which bundle from a lock."""

from dataclasses import asdict

from sqlalchemy import select

from storage.content import Digest
from storage.metadata.database import Database, replace
from storage.metadata.tables import bundles, layers
from storage.records import BundleRecord, LayerRecord


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

    async def add_layer(self, layer: LayerRecord) -> None:
        """Keep the record; the same key again replaces it."""
        async with self._database.write() as connection:
            await replace(connection, layers, asdict(layer))

    async def bundle(self, lock: Digest, target: str, toolchain: str) -> BundleRecord | None:
        """The bundle of this lock for this target class."""
        query = select(bundles).where(
            bundles.c.lock == lock, bundles.c.target == target, bundles.c.toolchain == toolchain
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else BundleRecord(**{**row._mapping, "warnings": tuple(row.warnings)})

    async def add_bundle(self, bundle: BundleRecord) -> None:
        """Keep the record; the same key again replaces it. Raises StorageError where its lock is not here."""
        async with self._database.write() as connection:
            await replace(connection, bundles, asdict(bundle))
