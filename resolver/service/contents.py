"""Blobs as a client asks for them: by their own digest, or a layer by its diff_id, the digest of its plain tar."""

import asyncio
import hashlib
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from resolver.service.healing import Healing
from resolver.service.recent import Recent
from resolver.service.uses import Lately
from storage.blob_protocols import BlobLinks, BlobReader
from storage.content import Digest
from storage.errors import BlobNotFound
from storage.protocols import ArtifactStore
from storage.records import LayerRecord

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

_CHUNK = 1 << 20
_REMEMBERED = 4096
_HELD = 256
SMALL = 64 << 10
"""Bytes of a blob that is read at once, and not in chunks."""
_LINK_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Content:
    """A blob's size in bytes, and where its bytes are: kept as they are, or packed in a layer."""

    digest: Digest
    size: int
    packed: LayerRecord | None = None

    @property
    def kept(self) -> Digest:
        """The blob that holds it."""
        return self.packed.digest if self.packed else self.digest


class Contents:
    """Finds and reads blobs. One that turns out to be gone or damaged is handed to `healing`, while whoever asked for
    it sees that for itself and asks again.

    Many ask for the same blobs at once, and one of them finds out. So within `trusted`, what was found is not looked
    for once more, what was read from its beginning to its end is not hashed once more, and what is small, and was what
    its digest names, is not read once more.
    """

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
        self._found: Recent[Digest, Content] = Recent(trusted.total_seconds(), _REMEMBERED)
        self._held: Recent[Digest, bytes] = Recent(trusted.total_seconds(), _HELD)
        self._blobs = blobs
        self._artifacts = artifacts
        self._healing = healing
        self._links = links
        self._layers: OrderedDict[Digest, LayerRecord] = OrderedDict()

    async def find(self, digest: Digest) -> Content:
        """The content that this digest names. Raises BlobNotFound."""
        found = self._found.get(digest)
        if found is None:
            found = await self._find(digest)
            self._found.put(digest, found)
        return found

    async def _find(self, digest: Digest) -> Content:
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

    async def piece(self, content: Content, start: int, length: int) -> bytes:
        """`length` bytes of it from `start`, of which there are SMALL at the most. Raises BlobNotFound."""
        if content.size > SMALL:
            return b"".join([chunk async for chunk in self._chunks(content, start, length, SMALL)])
        whole = self._held.get(content.digest)
        if whole is None:
            whole = b"".join([chunk async for chunk in self._chunks(content, 0, content.size, SMALL)])
            if Digest.of(whole) == content.digest:
                self._held.put(content.digest, whole)
            else:
                self._healing.suspect(content.kept)
        return whole[start : start + length]

    async def read(self, content: Content, start: int, length: int, most: int = _CHUNK) -> AsyncIterator[bytes]:
        """`length` bytes of it from `start`, in chunks of `most` at most. Raises BlobNotFound before the first."""
        check = (start, length) == (0, content.size) and content.digest not in self._hashed
        if check:
            self._hashed.add(content.digest)
        async for chunk in self._chunks(content, start, length, most, check=check):
            yield chunk

    async def _chunks(
        self, content: Content, start: int, length: int, most: int, *, check: bool = False
    ) -> AsyncIterator[bytes]:
        try:
            if content.packed is not None:
                chunks = self._unpacked(content.packed.digest, start, length, most, check=check)
            else:
                chunks = self._blobs.read(content.digest, start, length, most)
                if check:
                    chunks = self._checked(content.digest, chunks)
            async for chunk in chunks:
                yield chunk
        except BlobNotFound:
            self._found.forget(content.digest)
            self._healing.suspect(content.kept)
            raise

    async def _checked(self, digest: Digest, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """All of a blob; each chunk is hashed while it is being sent."""
        hasher = hashlib.sha256()
        hashing: asyncio.Future[None] | None = None
        async for chunk in chunks:
            if hashing is not None:
                await hashing
            hashing = asyncio.ensure_future(asyncio.to_thread(hasher.update, chunk))
            yield chunk
        if hashing is not None:
            await hashing
        if hasher.hexdigest() != digest.hex:
            self._healing.suspect(digest)

    async def _unpacked(
        self, digest: Digest, start: int, length: int, most: int, *, check: bool
    ) -> AsyncIterator[bytes]:
        skip = start
        # Checked is what is kept: a quarter of the bytes, and right where they are.
        packed = self._blobs.read(digest, most=most)
        try:
            async for chunk in self._decompressed(self._checked(digest, packed) if check else packed, most):
                piece = chunk[skip : skip + length] if skip < len(chunk) else b""
                skip = max(0, skip - len(chunk))
                if piece:
                    length -= len(piece)
                    yield piece
                if length <= 0 and not check:
                    return
        except ZstdError:
            self._healing.suspect(digest)
            raise

    async def _decompressed(self, packed: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
        decompressor = ZstdDecompressor()
        async for part in packed:
            chunk = await asyncio.to_thread(decompressor.decompress, part, most)
            while True:
                if chunk:
                    yield chunk
                if decompressor.eof or decompressor.needs_input:
                    break
                chunk = await asyncio.to_thread(decompressor.decompress, b"", most)

    async def whole(self, digest: Digest) -> bytes:
        """All of a small blob. Raises BlobNotFound."""
        return b"".join([chunk async for chunk in self._blobs.read(digest)])
