"""How the tables came to be, step by step (alembic). Run by `SqlMetadataStore.open`."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date, in the transaction that is under way on this connection."""
    config = Config()
    config.set_main_option("script_location", "storage.metadata:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
