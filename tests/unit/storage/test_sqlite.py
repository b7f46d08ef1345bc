"""What the embedded database promises beyond the contract: migrations, several processes, failures, indexes."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from storage.content import Digest
from storage.errors import StorageError, StorageFull, StorageUnavailable
from storage.metadata import sqlite
from storage.metadata.store import SqlMetadataStore
from storage.metadata.tables import metadata
from storage.records import LockRecord, PinName
from tests.contracts.samples import NOON, a_lock, a_pin, locks
from tests.unit.storage.queries import every_query, statements

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lockstep.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqlMetadataStore]:
    store = await SqlMetadataStore.open(f"sqlite:///{path}")
    yield store
    await store.close()


def pinning(path: Path, name: str, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.unit.storage.pinning_process", f"sqlite:///{path}", name, how]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@contextmanager
def writing_elsewhere(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


async def test_the_migrations_make_the_tables(store: SqlMetadataStore, path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    first = await SqlMetadataStore.open(f"sqlite:///{path}")
    lock = a_lock("one", packages=(("a", "1"),))
    await first.locks.add(lock)
    await first.close()
    second = await SqlMetadataStore.open(f"sqlite:///{path}")
    assert await second.locks.get(lock.digest) == lock
    await second.close()


async def test_openers_of_nothing_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(SqlMetadataStore.open(f"sqlite:///{path}") for _ in range(8)))
    [digest] = await locks(stores[0], "one")
    assert await stores[7].locks.get(digest) is not None
    for store in stores:
        await store.close()


def test_processes_that_start_at_once_agree_on_every_pin(path: Path) -> None:
    processes = [pinning(path, name, "once") for name in ("a", "b", "c", "d")]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    standing = [json.loads(output) for output in outputs]
    assert len(standing[0]) == 50
    assert standing == [standing[0]] * 4


async def test_a_killed_writer_leaves_whole_pins(path: Path) -> None:
    for name in ("a", "b", "c"):
        with pinning(path, name, "endless") as process:
            assert process.stdout is not None
            for _ in range(5):
                assert process.stdout.readline() == "pinned\n"
            process.kill()
    store = await SqlMetadataStore.open(f"sqlite:///{path}")
    pins = (await store.pins.page(None, None, 10_000)).items
    await store.close()
    assert len(pins) >= 5
    assert {len(pin.extensions) for pin in pins} == {5}


async def test_claims_that_wait_for_their_turn_take_it_together(store: SqlMetadataStore) -> None:
    with statements() as seen:
        await asyncio.gather(*(store.contents.claim([Digest.of(str(number).encode())]) for number in range(20)))
    assert [statement for statement, _ in seen].count("BEGIN IMMEDIATE") == 1


async def test_writers_wait_for_a_bounded_time_and_readers_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT", 0.2)
    store = await SqlMetadataStore.open(f"sqlite:///{path}")
    lock = a_lock("one")
    with writing_elsewhere(path):
        outcomes = await asyncio.gather(*(store.locks.add(lock) for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StorageUnavailable] * 5
        assert await store.locks.get(lock.digest) is None
    await store.locks.add(lock)
    assert await store.locks.get(lock.digest) == lock
    await store.close()


async def test_a_full_disk_is_storage_full_and_reads_go_on(small_disk: Path) -> None:
    store = await SqlMetadataStore.open(f"sqlite:///{small_disk}/lockstep.db")
    [digest] = await locks(store, "small")
    with pytest.raises(StorageFull):
        for number in range(10):
            await store.locks.add(LockRecord(Digest.of(bytes([number])), NOON, (), (), 0, b"x" * 1024 * 1024, ()))
    assert await store.locks.get(digest) == a_lock("small")
    await store.close()


async def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.write_text("no database at all, " * 100)
    with pytest.raises(StorageUnavailable, match="SQLITE_NOTADB"):
        await SqlMetadataStore.open(f"sqlite:///{path}")


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="SQLITE_CANTOPEN") as caught:
        await SqlMetadataStore.open(f"sqlite:///{tmp_path}/absent/lockstep.db")
    assert str(tmp_path) not in str(caught.value)


async def test_half_a_database_is_unavailable(store: SqlMetadataStore, path: Path) -> None:
    await store.close()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StorageUnavailable, match="SQLITE_CORRUPT"):
        await SqlMetadataStore.open(f"sqlite:///{path}")


async def test_a_ping_tells_that_the_tables_are_gone(store: SqlMetadataStore, path: Path) -> None:
    await store.ping()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE operations")
    connection.close()
    with pytest.raises(StorageUnavailable):
        await store.ping()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="a file"):
        await SqlMetadataStore.open(url)


async def test_failures_show_no_values(store: SqlMetadataStore) -> None:
    secret = "hush" * 2
    with pytest.raises(StorageError) as caught:
        await store.pins.add(a_pin(Digest.of(b"absent"), secret))
    assert secret not in "".join(traceback.format_exception(caught.value))


async def test_every_query_is_the_read_of_an_index(store: SqlMetadataStore, path: Path) -> None:
    seen = await every_query(store)
    queries = [(statement, parameters) for statement, parameters in seen if not statement.startswith("BEGIN")]
    assert len(queries) >= 20
    connection = sqlite3.connect(path)
    for statement, parameters in queries:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        tables = {table for table in metadata.tables if any(step.startswith(f"SCAN {table}") for step in plan)}
        scans = [step for step in plan if step.startswith("SCAN") and "USING" not in step]
        assert not [step for step in scans if step.split()[1] in tables], f"{statement}\n{plan}"
    connection.close()


async def test_a_pinned_answer_is_one_read(store: SqlMetadataStore) -> None:
    one, two = await locks(store, "one", "two")
    pin = await store.pins.add(a_pin(one, extensions=(("t", two), ("u", one))))
    with statements() as seen:
        assert await store.pins.get("shop", "checkout", "r1", "key") == pin
        assert await store.pins.standing(PinName("shop", "checkout", "r1"), False, "key", "t", "t1")
    assert [statement.split()[0] for statement, _ in seen] == ["BEGIN", "SELECT"] * 2
