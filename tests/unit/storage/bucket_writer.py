"""A process that writes into a bucket: `python -m … URL SCRATCH stall|large`.

`stall` stops in the middle of a blob until it is killed. `large` writes one of 300 MiB and prints by how many bytes
its memory grew over that of writing a small one.
"""

import asyncio
import hashlib
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from storage.blobs.object_store import ObjectBlobStore
from storage.content import Digest

MIB = 1024 * 1024
HALF = Digest.of(b"x" * (40 * MIB))


async def stall(store: ObjectBlobStore) -> None:
    async def half() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * MIB
        print("half", flush=True)
        await asyncio.Event().wait()

    await store.write(half(), HALF)


async def large(store: ObjectBlobStore) -> None:
    async def blocks(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield number.to_bytes(4, "big") * (MIB // 4)

    async def write(count: int) -> int:
        hasher = hashlib.sha256()
        async for block in blocks(count):
            hasher.update(block)
        await store.write(blocks(count), Digest.from_hex(hasher.hexdigest()))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    small = await write(1)
    print(await write(300) - small)


async def main() -> None:
    store = ObjectBlobStore.open(sys.argv[1], Path(sys.argv[2]))
    await (stall if sys.argv[3] == "stall" else large)(store)


if __name__ == "__main__":
    asyncio.run(main())
