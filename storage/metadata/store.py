"""All the references, in one database."""

from typing import Self

from sqlalchemy import make_url, select

from storage.metadata.artifacts import SqlArtifactStore
from storage.metadata.database import Database
from storage.metadata.locks import SqlLockStore
from storage.metadata.migrations import upgrade
from storage.metadata.operations import SqlOperationStore
from storage.metadata.pins import SqlPinStore
from storage.metadata.tables import operations
from storage.metadata.workloads import SqlWorkloadStore


class SqlMetadataStore:
    """A metadata store (storage.protocols.MetadataStore). Made by `open`, given back by `close`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks = SqlLockStore(database)
        self._pins = SqlPinStore(database)
        self._workloads = SqlWorkloadStore(database)
        self._artifacts = SqlArtifactStore(database)
        self._operations = SqlOperationStore(database)

    @classmethod
    async def open(cls, url: str) -> Self:
        """The store in the database at `url`, such as `sqlite:////data/lockstep.db`, its tables brought up to date.

        Several processes may open one database at once: the upgrade is a write, and writes take turns.

        Raises:
            StorageUnavailable, StorageFull: the database cannot be used.
            ValueError: the URL names an SQLite without a file.
        """
        database = await Database.open(make_url(url))
        try:
            async with database.write() as connection:
                await connection.run_sync(upgrade)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Give the connections back; nothing may be asked of the store any more."""
        await self._database.close()

    @property
    def locks(self) -> SqlLockStore:
        """Locks, and the keys that they answer."""
        return self._locks

    @property
    def pins(self) -> SqlPinStore:
        """Who runs what."""
        return self._pins

    @property
    def workloads(self) -> SqlWorkloadStore:
        """Refreshes and holds."""
        return self._workloads

    @property
    def artifacts(self) -> SqlArtifactStore:
        """Layers and bundles."""
        return self._artifacts

    @property
    def operations(self) -> SqlOperationStore:
        """Work that outlives its caller."""
        return self._operations

    async def ping(self) -> None:
        """Raises StorageUnavailable where the database does not answer."""
        async with self._database.read() as connection:
            await connection.execute(select(operations.c.id).limit(1))
