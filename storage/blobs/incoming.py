"""Contents on their way into a store."""

from collections.abc import AsyncGenerator, AsyncIterator

from storage.content import Digest
from storage.errors import DigestMismatch


async def blocks(chunks: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in blocks of at least `size`, but for the last: network chunks are small."""
    block = bytearray()
    async for chunk in chunks:
        block += chunk
        if len(block) >= size:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def verify(expected: Digest, hexdigest: str, size: int) -> None:
    """Raises DigestMismatch where the content of this SHA-256 and size is not the expected one."""
    actual = Digest.from_hex(hexdigest)
    if actual != expected:
        raise DigestMismatch(expected, actual, size)
