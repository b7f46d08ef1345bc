"""Looking at locks and pins."""

from collections.abc import Collection
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from resolver.domain.errors import NotFound
from resolver.domain.inspection import LockDiff, Paths, diff, why
from resolver.domain.locks import Lock, tool_facts
from resolver.service.lock_book import LockBook
from storage.content import Digest
from storage.protocols import BuildStore, LockStore, PinStore
from storage.records import BuildRecord, Holders, LockFilter, LockSummary, Page, PinRecord


@dataclass(frozen=True, slots=True)
class Described:
    """A lock in a list, with the pins that hold it: how many, and the newest few."""

    lock: LockSummary
    pins: Holders


class Inspecting:
    """Answers questions about what is locked and pinned."""

    def __init__(self, locks: LockStore, book: LockBook, pins: PinStore, builds: BuildStore) -> None:
        self._locks = locks
        self._book = book
        self._pins = pins
        self._builds = builds

    async def page(
        self,
        package: str | None,
        namespace: str | None,
        cursor: str | None,
        limit: int,
        seen_by: Collection[str] | None = None,
    ) -> Page[Described]:
        """Locks, newest first, with their pins of the namespaces that `seen_by` names (None: all)."""
        where = LockFilter(package=canonicalize_name(package) if package else None, namespace=namespace)
        found = await self._locks.page(where, cursor, limit)
        return Page(await self._with_pins(found.items, seen_by), found.cursor)

    async def describe(
        self, digest: Digest, seen_by: Collection[str] | None = None
    ) -> tuple[Described, Lock, dict[str, BuildRecord]]:
        """A lock, whole, with its pins as in `page`, and the builds that made wheels of it. Raises NotFound."""
        record = await self._locks.get(digest)
        if record is None:
            raise NotFound("lock", digest)
        lock = await self._book.get(digest)
        builds = [built["build"] for package in lock.pylock.packages for built in tool_facts(package).get("built", ())]
        return (await self._with_pins([record], seen_by))[0], lock, await self._builds.get(builds)

    async def lock(self, digest: Digest) -> Lock:
        """A lock's content. Raises NotFound."""
        return await self._book.get(digest)

    async def diff(self, a: Digest, b: Digest) -> LockDiff:
        """What changes from lock `a` to lock `b`. Raises NotFound."""
        return diff((await self.lock(a)).pylock, (await self.lock(b)).pylock)

    async def why(self, digest: Digest, package: str) -> tuple[str, Paths]:
        """The locked version of a package, and every path to it. Raises NotFound for the lock or the package."""
        lock = await self.lock(digest)
        name = canonicalize_name(package)
        version = lock.versions.get(name)
        if version is None:
            raise NotFound("package", name)
        return str(version), why(lock.pylock, name, lock.targets)

    async def pins(self, namespace: str | None, lock: Digest | None, cursor: str | None, limit: int) -> Page[PinRecord]:
        """Pins, newest first."""
        return await self._pins.page(namespace, cursor, limit, lock=lock)

    async def _with_pins(self, locks: Collection[LockSummary], seen_by: Collection[str] | None) -> list[Described]:
        pins = await self._pins.holders([lock.digest for lock in locks], seen_by)
        return [Described(lock, pins[lock.digest]) for lock in locks]
