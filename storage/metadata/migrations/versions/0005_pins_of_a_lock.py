"""The pins that hold a lock, newest first."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_pins_lock_created_id", "pins", ["lock", "created", "id"])
