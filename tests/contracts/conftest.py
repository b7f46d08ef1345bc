from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.metadata import database
from storage.metadata.tables import metadata
from tests.support.pooler import TransactionPooler
from tests.support.postgres import PostgresServer

# The suites are no test modules by name: without this their asserts would not explain themselves.
pytest.register_assert_rewrite(
    "tests.contracts.access_store",
    "tests.contracts.asked_store",
    "tests.contracts.blob_store",
    "tests.contracts.content_store",
    "tests.contracts.build_store",
    "tests.contracts.image_store",
    "tests.contracts.lease_store",
    "tests.contracts.job_store",
    "tests.contracts.lock_store",
    "tests.contracts.pin_store",
    "tests.contracts.retention_store",
    "tests.contracts.metadata_store",
)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no rows, to copy."""
    path = tmp_path_factory.mktemp("template") / "lockstep.db"
    database.migrate(database.parse(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with all tables and no rows, to copy."""
    with postgres.database() as name:
        database.migrate(database.parse(postgres.url(name)))
        yield name


@pytest.fixture(scope="session")
def reused(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    with postgres.database(template=migrated) as name:
        yield name


@pytest.fixture
def emptied(postgres: PostgresServer, reused: str) -> str:
    """The name of a database with all tables and no rows, for a test that makes no other use of it: sooner had than
    a database of its own."""
    postgres.execute(f"TRUNCATE {', '.join(metadata.tables)}", reused)
    return reused


@pytest.fixture(scope="session")
def pooler(postgres: PostgresServer) -> Iterator[TransactionPooler]:
    with TransactionPooler(postgres) as pooler:
        yield pooler
