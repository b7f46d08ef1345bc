"""A process that writes into a blob store until it is killed: `python -m … ROOT stall|many`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from storage.blobs.filesystem import FilesystemBlobStore
from storage.content import Digest

MIB = 1024 * 1024


async def stall(store: FilesystemBlobStore) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"x" * (3 * MIB)
        print("half", flush=True)
        await asyncio.Event().wait()

    await store.write(half(), Digest.of(b"x" * (6 * MIB)))


async def many(store: FilesystemBlobStore) -> None:
    async def whole(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), MIB):
            yield content[start : start + MIB]

    async def endless(writer: int) -> None:
        number = 0
        while True:
            content = f"{writer} {number} ".encode() * 300_000
            await store.write(whole(content), Digest.of(content))
            if number == 0:
                print("begun", flush=True)
            number += 1

    await asyncio.gather(*(endless(writer) for writer in range(4)))


async def main() -> None:
    store = await FilesystemBlobStore.open(Path(sys.argv[1]))
    await (stall if sys.argv[2] == "stall" else many)(store)


if __name__ == "__main__":
    asyncio.run(main())
