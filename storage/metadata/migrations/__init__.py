"""How the tables came to be, step by step (alembic). Run by `SqlMetadataStore.migrate`."""

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from storage.errors import StorageError

# Alembic keeps the migration under way in module globals.
_ONE_AT_A_TIME = threading.Lock()
STEPS = sorted(path.name[:4] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))
"""All that there are, oldest first."""


def bring_up_to_date(engine: Engine) -> None:
    """Bring the tables up to date in one transaction. Blocks.

    Whose migrations take turns is for the start of the engine's transactions to say: what is read here is what the
    one before left.

    Raises:
        StorageError: a newer version brought the tables further than this one knows.
    """
    with engine.begin() as connection:
        current = step(connection)
        if current == STEPS[-1]:
            return
        if current is not None and current not in STEPS:
            raise StorageError(f"the database was brought to {current} by a newer version of Lockstep")
        # Alembic takes a good part of a start to import, and nearly every start has nothing to do for it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "storage.metadata:migrations")
        config.attributes["connection"] = connection
        with _ONE_AT_A_TIME:
            command.upgrade(config, "head")


def step(connection: Connection) -> str | None:
    """The last step that was taken, as alembic records it; None where there are no tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found
