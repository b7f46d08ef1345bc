"""A process that opens a database and writes pins into it: `python -m … URL NAME once|endless`.

`once` writes fifty, all of them rivals of those of other names, and prints which stand. `endless` goes on until killed.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from itertools import count

from storage.content import Digest
from storage.metadata.store import SqlMetadataStore
from storage.records import LockRecord, PinRecord


async def main() -> None:
    url, name, how = sys.argv[1:]
    store = await SqlMetadataStore.open(url)
    lock = LockRecord(Digest.of(name.encode()), datetime.now(UTC), (), (), 0, b"", ())
    await store.locks.add(lock)

    async def pin(revision: int) -> Digest:
        extensions = tuple((f"t{number}", lock.digest) for number in range(5))
        wanted = PinRecord("n", "w", f"r{revision}", "k", lock.digest, datetime.now(UTC), extensions=extensions)
        return (await store.pins.add(wanted)).lock

    if how == "once":
        print(json.dumps(await asyncio.gather(*(pin(revision) for revision in range(50)))))
    else:
        for revision in count():
            await pin(revision)
            print("pinned", flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
