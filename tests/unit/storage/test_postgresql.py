"""What the shared database promises beyond the contract: migrations, outages, collisions, bounds, indexes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from storage.content import Digest
from storage.errors import StorageError, StorageFull, StorageUnavailable
from storage.metadata import postgresql
from storage.metadata.store import SqlMetadataStore
from storage.metadata.tables import metadata
from storage.records import LockRecord
from tests.contracts.samples import NOON, a_lock, a_pin, locks
from tests.support.postgres import NOBODY, PostgresServer, free_port
from tests.unit.storage.queries import every_query

ROOT = Path(__file__).parents[3]


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlMetadataStore]:
    store = await SqlMetadataStore.open(url)
    yield store
    await store.close()


@contextmanager
def session(url: str, *statements: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """Somebody else's transaction, under way."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection
        connection.rollback()


async def waiting_backend(postgres: PostgresServer, database: str) -> int:
    """The process of the connection that waits for a lock, as soon as one does."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not (rows := postgres.execute(query)):
            await asyncio.sleep(0.02)
    return int(rows[0][0])


async def until_it_answers(store: SqlMetadataStore) -> set[type]:
    """What the pings ended with until one passed."""
    seen: set[type] = set()
    async with asyncio.timeout(30):
        while True:
            try:
                await store.ping()
                return seen
            except StorageError as failure:
                seen.add(type(failure))
                await asyncio.sleep(0.01)


async def test_the_migrations_make_the_tables(store: SqlMetadataStore, url: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


async def test_openers_of_nothing_at_once(url: str) -> None:
    stores = await asyncio.gather(*(SqlMetadataStore.open(url) for _ in range(8)))
    [digest] = await locks(stores[0], "one")
    assert await stores[7].locks.get(digest) is not None
    for store in stores:
        await store.close()


def test_processes_that_start_at_once_agree_on_every_pin(url: str) -> None:
    command = [sys.executable, "-m", "tests.unit.storage.pinning_process", url]
    processes = [
        subprocess.Popen([*command, name, "once"], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in "abcd"
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    standing = [json.loads(output) for output in outputs]
    assert len(standing[0]) == 50
    assert standing == [standing[0]] * 4


async def test_a_killed_writer_leaves_whole_pins(url: str) -> None:
    command = [sys.executable, "-m", "tests.unit.storage.pinning_process", url, "a", "endless"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "pinned\n"
        process.kill()
    store = await SqlMetadataStore.open(url)
    pins = (await store.pins.page(None, None, 10_000)).items
    await store.close()
    assert len(pins) >= 5
    assert {len(pin.extensions) for pin in pins} == {5}


async def test_a_migration_waits_for_that_of_another(postgres: PostgresServer, database: str, url: str) -> None:
    with session(url, f"SELECT pg_advisory_xact_lock({postgresql._MIGRATION_LOCK})") as other:
        migrating = asyncio.create_task(SqlMetadataStore.migrate(url))
        await waiting_backend(postgres, database)
        assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'locks'", database) == [(0,)]
        other.rollback()
        await migrating
    assert postgres.execute("SELECT count(*) FROM locks", database) == [(0,)]


async def test_a_migration_that_fails_leaves_nothing(postgres: PostgresServer, database: str, url: str) -> None:
    postgres.execute("CREATE TABLE pins (id int)", database)
    with pytest.raises(ProgrammingError, match="pins"):
        await SqlMetadataStore.migrate(url)
    postgres.execute("DROP TABLE pins", database)
    await SqlMetadataStore.migrate(url)
    await SqlMetadataStore.migrate(url)
    assert postgres.execute("SELECT count(*) FROM locks", database) == [(0,)]


async def test_a_database_of_a_newer_version_is_refused(
    store: SqlMetadataStore, postgres: PostgresServer, database: str
) -> None:
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", database)
    with pytest.raises(StorageError, match="newer"):
        await SqlMetadataStore.open(postgres.url(database))


async def test_who_may_not_make_tables_may_use_them(
    store: SqlMetadataStore, postgres: PostgresServer, database: str
) -> None:
    role = f"{database}_user"
    postgres.execute(f"CREATE ROLE {role} LOGIN", database)
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}", database)
    postgres.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}", database)
    restricted = await SqlMetadataStore.open(f"postgresql://{role}@127.0.0.1:{postgres.port}/{database}")
    [digest] = await locks(restricted, "one")
    assert await restricted.pins.add(a_pin(digest)) == a_pin(digest)
    await restricted.close()


async def test_the_loop_goes_on_while_a_store_is_opened(url: str) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    store = await SqlMetadataStore.open(url)
    counting.cancel()
    await store.close()
    assert turns > 100  # opening in the loop gives it a handful


async def test_it_recovers_from_a_restart(store: SqlMetadataStore, postgres: PostgresServer) -> None:
    lock = a_lock("one")
    await asyncio.gather(*(store.locks.add(a_lock(str(number))) for number in range(20)), store.locks.add(lock))
    await asyncio.to_thread(postgres.stop)
    try:
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await store.locks.get(lock.digest)
            with pytest.raises(StorageUnavailable):
                await store.pins.add(a_pin(lock.digest))
    finally:
        await asyncio.to_thread(postgres.start)
    found = await asyncio.gather(*(store.locks.get(lock.digest) for _ in range(20)))
    assert found == [lock] * 20


async def test_it_recovers_from_a_restart_between_two_calls(store: SqlMetadataStore, postgres: PostgresServer) -> None:
    [digest] = await locks(store, "one")
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)
    assert await store.pins.add(a_pin(digest)) == a_pin(digest)


async def test_a_crash_is_an_outage_and_what_was_promised_is_kept(
    store: SqlMetadataStore, postgres: PostgresServer, database: str
) -> None:
    """A killed backend takes the whole server down and through its recovery (57P02, 57P03)."""
    for number in range(3):
        lock = a_lock(f"before {number}")
        await store.locks.add(lock)
        [(pid,)] = postgres.execute(f"SELECT min(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        with psycopg.connect(postgres.url()) as witness:
            os.kill(int(pid), signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                await asyncio.wait_for(asyncio.to_thread(witness.execute, "SELECT pg_sleep(60)"), 60)
        assert await until_it_answers(store) <= {StorageUnavailable}
        assert await store.locks.get(lock.digest) == lock


async def test_a_connection_that_is_ended_under_way(
    store: SqlMetadataStore, postgres: PostgresServer, database: str, url: str
) -> None:
    [digest] = await locks(store, "one")
    with session(url, "LOCK TABLE pins IN EXCLUSIVE MODE"):
        pinning = asyncio.create_task(store.pins.add(a_pin(digest)))
        pid = await waiting_backend(postgres, database)
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(StorageUnavailable, match="57P01"):
            await pinning
    assert await store.pins.add(a_pin(digest)) == a_pin(digest)


async def test_a_statement_that_takes_too_long_is_given_up(
    url: str, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_STATEMENT_TIMEOUT", 1)
    store = await SqlMetadataStore.open(url)
    [digest] = await locks(store, "one")
    with session(url, "LOCK TABLE pins IN EXCLUSIVE MODE"), pytest.raises(StorageUnavailable, match="57014"):
        await store.pins.add(a_pin(digest))
    assert await store.pins.add(a_pin(digest)) == a_pin(digest)
    await store.close()


async def test_a_connection_that_fell_silent_is_given_up(
    url: str, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "TRANSACTION_TIMEOUT", 1.0)
    store = await SqlMetadataStore.open(url)
    [digest] = await locks(store, "one")
    backends = postgres.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")
    with postgres.frozen(*(pid for (pid,) in backends)), pytest.raises(StorageUnavailable, match="in time"):
        await store.locks.get(digest)
    assert await until_it_answers(store) == set()
    assert await store.pins.add(a_pin(digest)) == a_pin(digest)
    await store.close()


async def test_a_server_that_does_not_greet_is_given_up(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "TRANSACTION_TIMEOUT", 1.0)
    monkeypatch.setitem(postgresql._CONNECTION, "connect_timeout", "2")
    await SqlMetadataStore.migrate(url)
    with postgres.frozen(), pytest.raises(StorageUnavailable):
        await SqlMetadataStore.open(url)
    store = await SqlMetadataStore.open(url)
    await store.close()


async def test_no_connection_comes_free(
    url: str, postgres: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_CONNECTIONS", 2)
    monkeypatch.setattr(postgresql, "_POOL_TIMEOUT", 0.2)
    store = await SqlMetadataStore.open(url)
    [digest] = await locks(store, "one")
    with session(url, "LOCK TABLE pins IN EXCLUSIVE MODE") as other:
        waiting = [asyncio.create_task(store.pins.add(a_pin(digest, f"r{number}"))) for number in range(2)]
        await waiting_backend(postgres, database)
        with pytest.raises(StorageUnavailable, match="in time"):
            await store.ping()
        other.rollback()
        assert await asyncio.gather(*waiting) == [a_pin(digest, "r0"), a_pin(digest, "r1")]
    await store.ping()
    await store.close()


async def test_a_port_that_nobody_listens_on() -> None:
    with pytest.raises(StorageUnavailable):
        await SqlMetadataStore.open(f"postgresql://postgres@127.0.0.1:{free_port()}/lockstep")


async def test_a_database_that_is_not_there(postgres: PostgresServer) -> None:
    with pytest.raises(StorageUnavailable):
        await SqlMetadataStore.open(postgres.url("absent"))


async def test_a_ping_tells_that_the_tables_are_gone(
    store: SqlMetadataStore, postgres: PostgresServer, database: str
) -> None:
    await store.ping()
    postgres.execute("DROP TABLE operations", database)
    with pytest.raises(StorageUnavailable, match="42P01"):
        await store.ping()


async def test_a_full_disk_is_storage_full_and_reads_go_on(
    store: SqlMetadataStore, postgres: PostgresServer, database: str, small_disk: Path
) -> None:
    if os.geteuid() == 0:
        # pytest's own folder is closed to the user that PostgreSQL runs as, so the mount is shown elsewhere too.
        os.chown(small_disk, NOBODY, NOBODY)
    shown = postgres.folder / f"{database}_small"
    shown.mkdir()
    subprocess.run(["mount", "--bind", small_disk, shown], check=True)
    try:
        [digest] = await locks(store, "small")
        postgres.execute(f"CREATE TABLESPACE {database}_small LOCATION '{shown}'")
        postgres.execute(f"ALTER TABLE locks SET TABLESPACE {database}_small", database)
        with pytest.raises(StorageFull):
            for number in range(10):
                content = os.urandom(1024 * 1024)
                await store.locks.add(LockRecord(Digest.of(bytes([number])), NOON, (), (), 0, content, ()))
        assert await store.locks.get(digest) == a_lock("small")
    finally:
        postgres.execute("DROP TABLE locks CASCADE", database)
        postgres.execute(f"DROP TABLESPACE {database}_small")
        subprocess.run(["umount", shown], check=True)


async def test_a_deadlock_is_tried_again(
    store: SqlMetadataStore, postgres: PostgresServer, database: str, url: str
) -> None:
    one, two = await locks(store, "one", "two")
    pin = a_pin(one, extensions=(("t", two),))
    # The other never gives way: its deadlock_timeout says when a waiter looks around for a circle.
    with session(url, "SET deadlock_timeout = '1h'", f"SELECT 1 FROM locks WHERE digest = '{two}' FOR UPDATE") as other:
        pinning = asyncio.create_task(store.pins.add(pin))
        await waiting_backend(postgres, database)  # it wrote the pin, and waits for the lock of the extension
        values = f"'shop', 'checkout', 'r1', 'key', '{one}', 0, false"
        columns = "namespace, workload, revision, key, lock, created, stale"
        rival = f"INSERT INTO pins ({columns}) VALUES ({values})".encode()
        await asyncio.to_thread(other.execute, rival)  # passes once the store's transaction was undone
        other.rollback()
        assert await pinning == pin


async def test_a_serialization_failure_is_tried_again(postgres: PostgresServer, database: str, url: str) -> None:
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")
    store = await SqlMetadataStore.open(url)
    await store.workloads.refresh("shop", "checkout", NOON)
    with session(url, "UPDATE workloads SET refreshes = 10") as other:
        refreshing = asyncio.create_task(store.workloads.refresh("shop", "checkout", NOON))
        await waiting_backend(postgres, database)
        other.commit()
        assert (await refreshing).refreshes == 11
    await store.close()


async def test_failures_show_no_values_and_no_password(store: SqlMetadataStore) -> None:
    secret = "hush" * 2
    with pytest.raises(StorageError) as caught:
        await store.pins.add(a_pin(Digest.of(b"absent"), secret))
    assert secret not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(StorageUnavailable) as refused:
        await SqlMetadataStore.open(f"postgresql://lockstep:{secret}@127.0.0.1:{free_port()}/lockstep")
    assert secret not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("url", ["hush", "hush://", "mysql://root:hush@127.0.0.1/lockstep", "postgresql://hush:x"])
async def test_other_urls_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        await SqlMetadataStore.open(url)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_every_query_can_be_the_read_of_an_index(store: SqlMetadataStore, url: str) -> None:
    queries = [entry for entry in await every_query(store) if not entry[0].startswith(("BEGIN", "SELECT pg_catalog"))]
    assert len(queries) >= 20
    # A scan of a whole table is left over only where no index will do.
    with session(url, "SET enable_seqscan = off") as connection:
        for statement, parameters in queries:
            rows = connection.execute(f"EXPLAIN {statement}".encode(), parameters).fetchall()
            plan = "\n".join(str(row[0]) for row in rows)
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"
