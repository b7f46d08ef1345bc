"""Records for the suites: made of little, so that a test says what matters to it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.content import Digest
from storage.protocols import MetadataStore
from storage.records import (
    LockFilter,
    LockRecord,
    LockSummary,
    PinRecord,
)

NOON = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
EVERYTHING = LockFilter()
NOT_CURSORS = ["", "x", "!!!", "ä", "bm90IG91cnM", "MQ", "MSAx", "MSAw", "MSAtMQ", "0" * 5000, "MSAxIA", "ICA"]


def a_lock(name: str, created: datetime = NOON, packages: tuple[tuple[str, str], ...] = ()) -> LockRecord:
    return LockRecord(
        digest=Digest.of(name.encode()),
        created=created,
        requirements=(f"{name}>=1", "ünïcode ; python_version < '3.13'"),
        targets=("cp312-musllinux_1_2_x86_64", "cp312-manylinux_2_28_x86_64"),
        package_count=len(packages),
        content=name.encode() + b"\x00\xff",
        packages=packages,
    )


def summary(lock: LockRecord) -> LockSummary:
    return LockSummary(lock.digest, lock.created, lock.requirements, lock.targets, lock.package_count)


async def locks(store: MetadataStore, *names: str) -> list[Digest]:
    records = [a_lock(name) for name in names]
    for record in records:
        await store.locks.add(record)
    return [record.digest for record in records]


def a_pin(lock: Digest, revision: str = "r1", **fields: Any) -> PinRecord:
    return replace(PinRecord("shop", "checkout", revision, "key", lock, NOON), **fields)
