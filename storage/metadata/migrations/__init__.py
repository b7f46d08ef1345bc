"""How the tables came to be, step by step (alembic). Run by `SqlMetadataStore.migrate`."""

import threading

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from storage.errors import StorageError

# Alembic keeps the migration under way in module globals.
_ONE_AT_A_TIME = threading.Lock()


def bring_up_to_date(engine: Engine) -> None:
    """Bring the tables up to date in one transaction. Blocks.

    Whose migrations take turns is for the start of the engine's transactions to say: what is read here is what the
    one before left.

    Raises:
        StorageError: a newer version brought the tables further than this one knows.
    """
    config = Config()
    config.set_main_option("script_location", "storage.metadata:migrations")
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == script.get_current_head():
            return
        if current is not None and current not in known:
            raise StorageError(f"the database was brought to {current} by a newer version of Lockstep")
        config.attributes["connection"] = connection
        with _ONE_AT_A_TIME:
            command.upgrade(config, "head")
