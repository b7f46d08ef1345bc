"""Blobs as a client asks for them: by their own digest, or a layer by its diff_id, the digest of its plain tar."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from storage.content import Digest
from storage.errors import BlobNotFound
from storage.protocols import ArtifactStore, BlobReader
from storage.records import LayerRecord

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor
else:
    from backports.zstd import ZstdDecompressor

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """A blob's size in bytes, and where its bytes are: kept as they are, or packed in a layer."""

    digest: Digest
    size: int
    packed: LayerRecord | None = None


class Contents:
    """Finds and reads blobs."""

    def __init__(self, blobs: BlobReader, artifacts: ArtifactStore) -> None:
        self._blobs = blobs
        self._artifacts = artifacts

    async def find(self, digest: Digest) -> Content:
        """The content that this digest names. Raises BlobNotFound."""
        size = await self._blobs.size(digest)
        if size is not None:
            return Content(digest, size)
        layer = await self._artifacts.layer_by_diff_id(digest)
        if layer is None or await self._blobs.size(layer.digest) is None:
            raise BlobNotFound(digest)
        return Content(digest, layer.tar_size, layer)

    async def read(self, content: Content, start: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes of it from `start`, in chunks of 1 MiB at most."""
        if content.packed is None:
            async for chunk in self._blobs.read(content.digest, start, length):
                yield chunk
            return
        skip = start
        async for chunk in self._unpacked(content.packed.digest):
            piece = chunk[skip : skip + length] if skip < len(chunk) else b""
            skip = max(0, skip - len(chunk))
            if piece:
                length -= len(piece)
                yield piece
            if length <= 0:
                return

    async def _unpacked(self, digest: Digest) -> AsyncIterator[bytes]:
        decompressor = ZstdDecompressor()
        async for packed in self._blobs.read(digest):
            chunk = await asyncio.to_thread(decompressor.decompress, packed, _CHUNK)
            while True:
                if chunk:
                    yield chunk
                if decompressor.eof or decompressor.needs_input:
                    break
                chunk = await asyncio.to_thread(decompressor.decompress, b"", _CHUNK)

    async def whole(self, digest: Digest) -> bytes:
        """All of a small blob. Raises BlobNotFound."""
        return b"".join([chunk async for chunk in self._blobs.read(digest)])
