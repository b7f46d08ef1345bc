"""Checking the stores: every blob against its digest, every reference against its blob."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import structlog

from resolver.service.healing import Healing, Verdict
from storage.blob_protocols import BlobStore
from storage.content import Digest, InvalidDigest
from storage.errors import BlobNotFound, StorageError
from storage.protocols import ContentStore

T = TypeVar("T")

_PAGE = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """`damaged`: the blob is not what its digest names; `missing`: a record needs it and it is not there; `incomplete`:
    the bundle with this digest names what is not there, or is no manifest. `mended`: nothing needs it any more, so that
    its next use makes it anew."""

    kind: Literal["damaged", "missing", "incomplete"]
    digest: Digest
    mended: bool


@dataclass(slots=True)
class Checked:
    """What a check saw: `blobs` of `bytes`, `references`, and the faults. `garbage`: blobs that nobody ever claimed, no
    fault, and a collection's to remove."""

    blobs: int = 0
    bytes: int = 0
    references: int = 0
    garbage: int = 0
    garbage_bytes: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether no damage remains."""
        return all(fault.mended for fault in self.faults)


class Checking:
    """Reads all blobs, `parallel` at a time."""

    def __init__(self, blobs: BlobStore, contents: ContentStore, healing: Healing, *, parallel: int = 8) -> None:
        self._blobs = blobs
        self._contents = contents
        self._healing = healing
        self._parallel = parallel

    async def check(self, *, repair: bool) -> Checked:
        """Check all. Raises what the stores raise, but where a repair fails: then that fault remains."""
        checked = Checked()
        await self._check_blobs(checked, repair)
        await self._check_references(checked, repair)
        await self._check_bundles(checked, repair)
        checked.faults.sort(key=lambda fault: (fault.kind, fault.digest))
        log.info("fsck.done", blobs=checked.blobs, references=checked.references, faults=len(checked.faults))
        return checked

    async def _check_blobs(self, checked: Checked, repair: bool) -> None:
        async def look(digest: Digest) -> None:
            await self._judge(checked, digest, await self._healing.look(digest), repair)

        async for page in _pages(self._blobs.all()):
            sizes = {blob.digest: blob.size for blob in page}
            checked.blobs += len(sizes)
            checked.bytes += sum(sizes.values())
            loose = await self._contents.unknown(sizes)
            checked.garbage += len(loose)
            checked.garbage_bytes += sum(sizes[digest] for digest in loose)
            await self._each(look, sizes)

    async def _check_references(self, checked: Checked, repair: bool) -> None:
        async def look(digest: Digest) -> None:
            await self._judge(checked, digest, await self._healing.look_for(digest), repair)

        last: Digest | None = None
        while page := await self._contents.needed(last, _PAGE):
            checked.references += len(page)
            known = {fault.digest for fault in checked.faults}
            await self._each(look, [digest for digest in page if digest not in known])
            last = page[-1]

    async def _check_bundles(self, checked: Checked, repair: bool) -> None:
        """What a manifest names the records name too, so it was looked for already; this finds records that do not
        agree with their manifest."""
        known = {fault.digest for fault in checked.faults}

        async def look(digest: Digest) -> None:
            if digest in known or await self._is_complete(digest, known):
                return
            mended = repair and await self._mended(digest, "missing")
            checked.faults.append(Fault("incomplete", digest, mended))

        last: Digest | None = None
        while page := await self._contents.bundles(last, _PAGE):
            await self._each(look, page)
            last = page[-1]

    async def _is_complete(self, bundle: Digest, known: set[Digest]) -> bool:
        """Whether all that the bundle names is there, or is `known` not to be; or the bundle is no more."""
        with contextlib.suppress(BlobNotFound):
            content = b"".join([chunk async for chunk in self._blobs.read(bundle)])
            try:
                parts = _parts(json.loads(content))
            except (ValueError, TypeError, KeyError, InvalidDigest):
                return False
            sizes = [await self._blobs.size(part) for part in parts if part not in known]
            return None not in sizes or not await self._contents.is_needed(bundle)
        return not await self._contents.is_needed(bundle)

    async def _judge(self, checked: Checked, digest: Digest, verdict: Verdict, repair: bool) -> None:
        if verdict != "sound":
            checked.faults.append(Fault(verdict, digest, repair and await self._mended(digest, verdict)))

    async def _mended(self, digest: Digest, verdict: Verdict) -> bool:
        try:
            await self._healing.mend(digest, verdict)
        except StorageError:
            log.exception("fsck.not-mended", digest=digest, verdict=verdict)
            return False
        return True

    async def _each(self, look: Callable[[Digest], Awaitable[None]], digests: Collection[Digest]) -> None:
        turns = asyncio.Semaphore(self._parallel)

        async def in_turn(digest: Digest) -> None:
            async with turns:
                await look(digest)

        try:
            async with asyncio.TaskGroup() as looking:
                for digest in digests:
                    looking.create_task(in_turn(digest))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures


def _parts(manifest: dict[str, Any]) -> list[Digest]:
    return [Digest(part["digest"]) for part in (manifest["config"], *manifest["layers"])]


async def _pages(items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    page: list[T] = []
    async for item in items:
        page.append(item)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
