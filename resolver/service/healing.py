"""Blobs that are not what their digest names, or are gone: put aside, and what needs them dropped.

A blob is never repaired in place. Once no record needs it, whoever wants it next does what one does with a blob that
was never there: fetches the wheel by its hash, builds the layer, makes the manifest.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Literal

import structlog

from resolver.single_flight import SingleFlight
from storage.blob_protocols import BlobStore
from storage.content import Digest
from storage.errors import BlobNotFound, StorageError
from storage.protocols import ContentStore

Verdict = Literal["sound", "damaged", "missing"]

_MOST_SUSPECTS = 16

log = structlog.get_logger(__name__)


class Healing:
    """Looks at blobs, and mends what is found; `mended` hears of each time."""

    def __init__(self, blobs: BlobStore, contents: ContentStore, mended: Callable[[], None] = lambda: None) -> None:
        self._mended = mended
        self._blobs = blobs
        self._contents = contents
        self._examining: SingleFlight[Digest, Verdict] = SingleFlight()
        self._suspects: set[asyncio.Task[None]] = set()

    async def look(self, digest: Digest) -> Verdict:
        """Read the blob to its end. `missing` only where a record needs it, else a blob that is gone is sound."""
        hasher = hashlib.sha256()
        try:
            async for chunk in self._blobs.read(digest):
                await asyncio.to_thread(hasher.update, chunk)
        except BlobNotFound:
            return await self.look_for(digest)
        return "sound" if hasher.hexdigest() == digest.hex else "damaged"

    async def look_for(self, digest: Digest) -> Verdict:
        """Whether a record needs the blob and it is not there; its bytes are not looked at."""
        if await self._blobs.size(digest) is not None or not await self._contents.is_needed(digest):
            return "sound"
        # It may have been removed and made again in between. Records go before blobs, and come after them.
        return "sound" if await self._blobs.size(digest) is not None else "missing"

    async def mend(self, digest: Digest, verdict: Verdict) -> None:
        """Drop what needs the blob, and put a damaged one out of the way."""
        if verdict == "sound":
            return
        log.warning("blob.mended", digest=digest, verdict=verdict)
        async with self._contents.dropping(digest):
            if verdict == "damaged":
                await self._blobs.quarantine(digest)
        self._mended()

    async def examine(self, digest: Digest) -> Verdict:
        """Look at the blob, and mend it where that is needed; once for all who ask at the same time."""
        return await self._examining.do(digest, lambda: self._examine(digest))

    def suspect(self, digest: Digest) -> None:
        """Have the blob examined soon. Waits for nothing; where too many are suspects, whoever reads it next will
        suspect it again."""
        if len(self._suspects) < _MOST_SUSPECTS:
            task = asyncio.create_task(self._examine_quietly(digest))
            self._suspects.add(task)
            task.add_done_callback(self._suspects.discard)

    @property
    def suspects(self) -> int:
        """How many blobs are still to be examined."""
        return len(self._suspects)

    async def _examine(self, digest: Digest) -> Verdict:
        verdict = await self.look(digest)
        await self.mend(digest, verdict)
        return verdict

    async def _examine_quietly(self, digest: Digest) -> None:
        try:
            await self.examine(digest)
        except StorageError as failure:
            log.warning("blob.not-examined", digest=digest, cause=str(failure))

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._suspects):
            task.cancel()
        await asyncio.gather(*self._suspects, return_exceptions=True)
        await self._examining.close()
