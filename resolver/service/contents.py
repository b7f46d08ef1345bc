"""Blobs as a client asks for them: by their own digest, or a layer by its diff_id, the digest of its plain tar."""

import asyncio
import hashlib
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from resolver.service.healing import Healing
from resolver.service.uses import Lately
from storage.content import Digest
from storage.errors import BlobNotFound
from storage.protocols import ArtifactStore, BlobLinks, BlobReader
from storage.records import LayerRecord

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

_CHUNK = 1 << 20
_REMEMBERED = 4096
_LINK_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Content:
    """A blob's size in bytes, and where its bytes are: kept as they are, or packed in a layer."""

    digest: Digest
    size: int
    packed: LayerRecord | None = None


class Contents:
    """Finds and reads blobs. One that turns out to be gone or damaged is handed to `healing`, while whoever asked for
    it sees that for itself and asks again. What was read from its beginning to its end within `trusted` is not hashed
    once more: many ask for the same blobs at once, and one of them finds out."""

    def __init__(
        self,
        blobs: BlobReader,
        artifacts: ArtifactStore,
        healing: Healing,
        links: BlobLinks | None = None,
        *,
        trusted: timedelta = timedelta(),
    ) -> None:
        self._hashed = Lately(trusted)
        self._blobs = blobs
        self._artifacts = artifacts
        self._healing = healing
        self._links = links
        self._layers: OrderedDict[Digest, LayerRecord] = OrderedDict()

    async def find(self, digest: Digest) -> Content:
        """The content that this digest names. Raises BlobNotFound."""
        size = await self._blobs.size(digest)
        if size is not None:
            return Content(digest, size)
        layer = self._layers.get(digest) or await self._artifacts.layer_by_diff_id(digest)
        if layer is None or await self._blobs.size(layer.digest) is None:
            self._healing.suspect(digest if layer is None else layer.digest)
            raise BlobNotFound(digest)
        # Remembered, so that a layer that is asked for is served while the database is away.
        self._layers[digest] = layer
        while len(self._layers) > _REMEMBERED:
            self._layers.popitem(last=False)
        return Content(digest, layer.tar_size, layer)

    async def link(self, content: Content) -> str | None:
        """Where else the content can be fetched, for a while; None where it must come through here."""
        if self._links is None or content.packed is not None:
            return None
        return await self._links.presigned(content.digest, _LINK_SECONDS)

    async def read(self, content: Content, start: int, length: int, most: int = _CHUNK) -> AsyncIterator[bytes]:
        """`length` bytes of it from `start`, in chunks of `most` bytes at most."""
        if content.packed is None:
            chunks = self._blobs.read(content.digest, start, length, most)
        else:
            chunks = self._unpacked(content.packed.digest, start, length, most)
        if (start, length) == (0, content.size) and content.digest not in self._hashed:
            self._hashed.add(content.digest)
            chunks = self._checked(content, chunks)
        async for chunk in chunks:
            yield chunk

    async def _checked(self, content: Content, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """All of the content; each chunk is hashed while it is being sent."""
        hasher = hashlib.sha256()
        hashing: asyncio.Future[None] | None = None
        async for chunk in chunks:
            if hashing is not None:
                await hashing
            hashing = asyncio.ensure_future(asyncio.to_thread(hasher.update, chunk))
            yield chunk
        if hashing is not None:
            await hashing
        if hasher.hexdigest() != content.digest.hex:
            self._healing.suspect(content.packed.digest if content.packed else content.digest)

    async def _unpacked(self, digest: Digest, start: int, length: int, most: int) -> AsyncIterator[bytes]:
        skip = start
        try:
            async for chunk in self._decompressed(digest, most):
                piece = chunk[skip : skip + length] if skip < len(chunk) else b""
                skip = max(0, skip - len(chunk))
                if piece:
                    length -= len(piece)
                    yield piece
                if length <= 0:
                    return
        except ZstdError:
            self._healing.suspect(digest)
            raise

    async def _decompressed(self, digest: Digest, most: int) -> AsyncIterator[bytes]:
        decompressor = ZstdDecompressor()
        async for packed in self._blobs.read(digest, most=most):
            chunk = await asyncio.to_thread(decompressor.decompress, packed, most)
            while True:
                if chunk:
                    yield chunk
                if decompressor.eof or decompressor.needs_input:
                    break
                chunk = await asyncio.to_thread(decompressor.decompress, b"", most)

    async def whole(self, digest: Digest) -> bytes:
        """All of a small blob. Raises BlobNotFound."""
        return b"".join([chunk async for chunk in self._blobs.read(digest)])
