"""What a metadata store asks of its database, as the database is asked it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from storage.metadata.store import SqlMetadataStore
from storage.records import Hold, LockFilter, OperationRecord, PinName, Resolution
from tests.contracts.samples import NOON, a_pin, locks


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def every_query(store: SqlMetadataStore) -> list[tuple[str, Any]]:
    """One of each kind; statements with their parameters."""
    [digest] = await locks(store, "one")
    pin = await store.pins.add(a_pin(digest))
    cursors = {}
    for number in range(3):
        await store.pins.add(a_pin(digest, f"more{number}"))
        await locks(store, f"more{number}")
    cursors["locks"] = (await store.locks.page(LockFilter(), None, 1)).cursor
    cursors["pins"] = (await store.pins.page(None, None, 1)).cursor
    with statements() as seen:
        await store.locks.get(digest)
        for where in (LockFilter(), LockFilter("a"), LockFilter(None, "shop"), LockFilter("a", "shop")):
            await store.locks.page(where, cursors["locks"], 1)
        await store.locks.resolutions("key")
        await store.locks.add_resolution(Resolution("key", digest, (), NOON))
        await store.locks.keys_of(digest)
        await store.pins.get("shop", "checkout", "r1", "key")
        await store.pins.standing(PinName("shop", "checkout", "r1"), False, "key", "t", "t")
        await store.pins.standing(PinName("shop", "checkout", "@"), True, "key", "t", "t")
        await store.pins.newest("shop", "checkout", "key", NOON)
        await store.pins.extend(pin, "t", digest)
        for namespace in (None, "shop"):
            await store.pins.page(namespace, cursors["pins"], 1)
            await store.pins.page(namespace, cursors["pins"], 1, lock=digest)
        await store.pins.holders([digest])
        await store.pins.holders([digest], ["shop", "bank"])
        await store.pins.holds(digest, "key")
        await store.workloads.get("shop", "checkout")
        await store.workloads.hold("shop", "checkout", Hold(digest, NOON))
        await store.artifacts.layer(digest, "3.12", "t")
        await store.artifacts.layer_by_diff_id(digest)
        await store.artifacts.bundle(digest, "t", "t")
        await store.artifacts.use(digest, NOON)
        await store.images.locks_of(digest)
        await store.access.has_pinned(["shop", "bank"], digest)
        await store.access.has_content(["shop", "bank"], digest)
        await store.access.locks_with(digest)
        await store.images.newest_pins("shop", "checkout")
        await store.images.attach(digest, {})
        await store.workloads.see("shop", "checkout", NOON)
        await store.contents.claim([digest])
        await store.contents.is_needed(digest)
        await store.contents.unknown([digest])
        await store.contents.needed(digest, 10)
        await store.retention.page(digest, 10)
        await store.operations.put(OperationRecord("id", "k", "running", NOON, NOON))
        await store.operations.get("id")
        await store.operations.delete_before(NOON)
        await store.asked.most(NOON, 10)
        await store.asked.delete_before(NOON)
    return seen
