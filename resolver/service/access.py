"""What may be read by its digest, by callers who speak for some namespaces alone.

A lock may be read where it could have been made, that is, where all of the indexes that it is from are open to one of
the caller's namespaces, or where one of them ever pinned it. A content (a bundle, a layer, a document) may be read
where it is part of a bundle of such a lock. What may not be read is answered as what is not there.

While every index is open to all namespaces, that is everything: nothing that is here is anybody's own.
"""

from collections import OrderedDict
from collections.abc import Sequence

from resolver.domain.errors import NotFound
from resolver.domain.identity import Caller
from resolver.domain.locks import tool_facts
from resolver.domain.requests import Index
from resolver.service.images import ANY_BUNDLE, lock_of_repository, namespace_of_repository
from resolver.service.lock_book import LockBook
from storage.content import Digest
from storage.protocols import AccessStore

_REMEMBERED = 16_384


class Access:
    """Decides, and remembers what it allowed: what a caller may read now, it may read for as long as this process."""

    def __init__(self, indexes: Sequence[Index], book: LockBook, store: AccessStore) -> None:
        self._indexes = {index.name: index for index in indexes}
        self._all_open = all(index.namespaces is None for index in indexes)
        self._book = book
        self._store = store
        self._allowed: OrderedDict[tuple[bytes, Digest], None] = OrderedDict()

    async def lock(self, caller: Caller, digest: Digest) -> None:
        """Raises NotFound where the caller may not read the lock, or where there is none."""
        if caller.namespaces is None or self._all_open or (caller.scope, digest) in self._allowed:
            return
        if not await self._readable(caller.namespaces, digest):
            raise NotFound("lock", digest)
        self._allow(caller, digest)

    async def has_content(self, caller: Caller, digest: Digest) -> bool:
        """Whether the caller may read the blob."""
        if caller.namespaces is None or self._all_open or (caller.scope, digest) in self._allowed:
            return True
        if not await self._store.has_content(caller.namespaces, digest):
            for lock in await self._store.locks_with(digest):
                if await self._could_make(caller.namespaces, lock):
                    break
            else:
                return False
        self._allow(caller, digest)
        return True

    async def repository(self, caller: Caller, name: str) -> None:
        """Raises Forbidden where it is a workload's of a namespace that the caller does not speak for, NotFound where
        it is a lock's that it may not read."""
        if caller.namespaces is None or name == ANY_BUNDLE:
            return
        if (lock := lock_of_repository(name)) is not None:
            await self.lock(caller, lock)
        elif (namespace := namespace_of_repository(name)) is not None:
            caller.named(namespace)

    async def _readable(self, namespaces: frozenset[str], lock: Digest) -> bool:
        return await self._store.has_pinned(namespaces, lock) or await self._could_make(namespaces, lock)

    async def _could_make(self, namespaces: frozenset[str], lock: Digest) -> bool:
        try:
            found = await self._book.get(lock)
        except NotFound:
            return False  # a bundle is there before its lock is
        names = {tool_facts(package).get("index") for package in found.pylock.packages}
        indexes = [self._indexes.get(str(name)) for name in names]
        # One namespace that all of them are open to: who speaks for several asks for one of them at a time.
        return any(all(index is not None and index.open_to(each) for index in indexes) for each in namespaces)

    def _allow(self, caller: Caller, digest: Digest) -> None:
        self._allowed[caller.scope, digest] = None
        while len(self._allowed) > _REMEMBERED:
            self._allowed.popitem(last=False)
