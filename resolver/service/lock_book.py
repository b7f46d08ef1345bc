"""Locks by digest, parsed once: they are immutable, so a process may remember them."""

from collections import OrderedDict
from datetime import UTC, datetime

from resolver.domain.errors import NotFound
from resolver.domain.locks import Lock
from storage.content import Digest
from storage.protocols import LockStore
from storage.records import LockRecord

_REMEMBERED = 256


class LockBook:
    """Reads and writes locks through a store."""

    def __init__(self, store: LockStore) -> None:
        self._store = store
        self._parsed: OrderedDict[Digest, Lock] = OrderedDict()

    async def get(self, digest: Digest) -> Lock:
        """The lock. Raises NotFound."""
        if digest in self._parsed:
            self._parsed.move_to_end(digest)
            return self._parsed[digest]
        record = await self._store.get(digest)
        if record is None:
            raise NotFound("lock", digest)
        return self._remember(Lock.parse(record.content))

    async def add(self, lock: Lock) -> None:
        """Keep the lock."""
        await self._store.add(
            LockRecord(
                digest=lock.digest,
                created=datetime.now(UTC),
                requirements=lock.requirements,
                targets=tuple(target.name for target in lock.targets),
                package_count=len(lock.pylock.packages),
                content=lock.content,
                packages=tuple((name, str(version)) for name, version in lock.versions.items()),
            )
        )
        self._remember(lock)

    def _remember(self, lock: Lock) -> Lock:
        self._parsed[lock.digest] = lock
        while len(self._parsed) > _REMEMBERED:
            self._parsed.popitem(last=False)
        return lock
