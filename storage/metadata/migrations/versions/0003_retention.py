"""What is stored, what needs it, when it was last used.

The bundles that are there have no list of what they need, so their records go: the next use of each makes it anew, from
layers that stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and what is new in others."""
    op.create_table(
        "contents",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("incarnation", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger()),
        sa.Column("marked", sa.BigInteger()),
        sa.PrimaryKeyConstraint("digest", name="pk_contents"),
    )

    op.create_table(
        "bundle_parts",
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", "part", name="pk_bundle_parts"),
    )
    op.create_index("ix_bundle_parts_part_bundle", "bundle_parts", ["part", "bundle"])

    op.drop_table("bundles")
    op.create_table(
        "bundles",
        sa.Column("lock", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("toolchain", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("unpacked_size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lock", "target", "toolchain", name="pk_bundles"),
    )
    op.create_index("ix_bundles_digest", "bundles", ["digest"])
    op.create_index("ix_bundles_used", "bundles", ["used"])

    op.create_index("ix_layers_digest", "layers", ["digest"])
    op.create_index("ix_layers_listing", "layers", ["listing"])
    op.add_column("workloads", sa.Column("seen", sa.BigInteger()))
