"""All the references, in one database."""

import asyncio
from typing import Self

from sqlalchemy import select

from storage.metadata.access import SqlAccessStore
from storage.metadata.artifacts import SqlArtifactStore
from storage.metadata.asked import SqlAskedStore
from storage.metadata.builds import SqlBuildStore
from storage.metadata.contents import SqlContentStore
from storage.metadata.database import Database, migrate, parse
from storage.metadata.images import SqlImageStore
from storage.metadata.jobs import SqlJobStore
from storage.metadata.leases import SqlLeaseStore
from storage.metadata.locks import SqlLockStore
from storage.metadata.operations import SqlOperationStore
from storage.metadata.pins import SqlPinStore
from storage.metadata.refusals import SqlRefusalStore
from storage.metadata.retention import SqlRetentionStore
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
        self._access = SqlAccessStore(database)
        self._builds = SqlBuildStore(database)
        self._images = SqlImageStore(database)
        self._contents = SqlContentStore(database)
        self._retention = SqlRetentionStore(database)
        self._operations = SqlOperationStore(database)
        self._leases = SqlLeaseStore(database)
        self._refusals = SqlRefusalStore(database)
        self._jobs = SqlJobStore(database)
        self._asked = SqlAskedStore(database)

    @classmethod
    async def open(cls, url: str) -> Self:
        """The store in the database at `url`, its tables brought up to date: `sqlite:////data/lockstep.db` or
        `postgresql://user@host/database`, where libpq's own variables and files (PGPASSWORD, PGPASSFILE) count.

        Raises: as `migrate`.
        """
        await cls.migrate(url)
        return cls(Database.at(parse(url)))

    @staticmethod
    async def migrate(url: str) -> None:
        """Bring the tables of the database at `url` up to date. Several processes may do so at once: they take turns.

        Raises:
            StorageUnavailable, StorageFull: the database cannot be used.
            StorageError: it was brought further by a newer version.
            ValueError: the URL is none, or names an SQLite without a file; the URL is not shown.
        """
        await asyncio.to_thread(migrate, parse(url))

    async def connect(self) -> None:
        """Make connections before they are needed. Raises StorageUnavailable."""
        await self._database.connect()

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
    def builds(self) -> SqlBuildStore:
        """Wheels built of source distributions."""
        return self._builds

    @property
    def images(self) -> SqlImageStore:
        """Bundles as OCI clients ask for them."""
        return self._images

    @property
    def access(self) -> SqlAccessStore:
        """Which namespaces have what."""
        return self._access

    @property
    def contents(self) -> SqlContentStore:
        """Which blobs references need."""
        return self._contents

    @property
    def retention(self) -> SqlRetentionStore:
        """What is kept of the blobs."""
        return self._retention

    @property
    def operations(self) -> SqlOperationStore:
        """Work that outlives its caller."""
        return self._operations

    @property
    def leases(self) -> SqlLeaseStore:
        """Who does what."""
        return self._leases

    @property
    def refusals(self) -> SqlRefusalStore:
        """What failed a moment ago."""
        return self._refusals

    @property
    def asked(self) -> SqlAskedStore:
        """What was asked for lately."""
        return self._asked

    @property
    def jobs(self) -> SqlJobStore:
        """What waits for a worker."""
        return self._jobs

    async def ping(self) -> None:
        """Raises StorageUnavailable where the database does not answer."""
        async with self._database.read() as connection:
            await connection.execute(select(operations.c.id).limit(1))
