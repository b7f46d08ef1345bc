"""Locks, pins, workloads, layers, bundles and operations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "locks",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("requirements", sa.JSON(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("package_count", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_locks"),
    )
    op.create_index("ix_locks_created_digest", "locks", ["created", "digest"])

    op.create_table(
        "lock_packages",
        sa.Column("lock", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lock", "position", name="pk_lock_packages"),
        sa.ForeignKeyConstraint(["lock"], ["locks.digest"], name="fk_lock_packages_lock", ondelete="CASCADE"),
    )
    op.create_index("ix_lock_packages_name_created_lock", "lock_packages", ["name", "created", "lock"])

    op.create_table(
        "lock_namespaces",
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("lock", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "lock", name="pk_lock_namespaces"),
        sa.ForeignKeyConstraint(["lock"], ["locks.digest"], name="fk_lock_namespaces_lock", ondelete="CASCADE"),
    )
    op.create_index("ix_lock_namespaces_namespace_created_lock", "lock_namespaces", ["namespace", "created", "lock"])

    op.create_table(
        "resolutions",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("lock", sa.String(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "lock", name="pk_resolutions"),
        sa.ForeignKeyConstraint(["lock"], ["locks.digest"], name="fk_resolutions_lock"),
    )
    op.create_index("ix_resolutions_key_at_lock", "resolutions", ["key", "at", "lock"])
    op.create_index("ix_resolutions_lock_key", "resolutions", ["lock", "key"])

    op.create_table(
        "pins",
        sa.Column("id", _ROW_NUMBER, nullable=False, autoincrement=True),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("lock", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pins"),
        sa.UniqueConstraint("namespace", "workload", "revision", "key", name="uq_pins_namespace"),
        sa.ForeignKeyConstraint(["lock"], ["locks.digest"], name="fk_pins_lock"),
    )
    op.create_index(
        "ix_pins_namespace_workload_key_stale_created_id",
        "pins",
        ["namespace", "workload", "key", "stale", "created", "id"],
    )
    op.create_index("ix_pins_created_id", "pins", ["created", "id"])
    op.create_index("ix_pins_namespace_created_id", "pins", ["namespace", "created", "id"])
    op.create_index("ix_pins_lock_namespace", "pins", ["lock", "namespace"])

    op.create_table(
        "pin_extensions",
        sa.Column("pin", _ROW_NUMBER, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("lock", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pin", "position", name="pk_pin_extensions"),
        sa.UniqueConstraint("pin", "target", name="uq_pin_extensions_pin"),
        sa.ForeignKeyConstraint(["pin"], ["pins.id"], name="fk_pin_extensions_pin", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["lock"], ["locks.digest"], name="fk_pin_extensions_lock"),
    )
    op.create_index("ix_pin_extensions_lock_pin", "pin_extensions", ["lock", "pin"])

    op.create_table(
        "workloads",
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("refreshes", sa.Integer(), nullable=False),
        sa.Column("refreshed_at", sa.BigInteger()),
        sa.Column("hold_lock", sa.String()),
        sa.Column("hold_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("namespace", "workload", name="pk_workloads"),
        sa.ForeignKeyConstraint(["hold_lock"], ["locks.digest"], name="fk_workloads_hold_lock"),
    )

    op.create_table(
        "layers",
        sa.Column("wheel", sa.String(), nullable=False),
        sa.Column("python", sa.String(), nullable=False),
        sa.Column("toolchain", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("diff_id", sa.String(), nullable=False),
        sa.Column("tar_size", sa.BigInteger(), nullable=False),
        sa.Column("unpacked_size", sa.BigInteger(), nullable=False),
        sa.Column("listing", sa.String(), nullable=False),
        sa.Column("has_pth", sa.Boolean(), nullable=False),
        sa.Column("has_bytecode", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("wheel", "python", "toolchain", name="pk_layers"),
    )
    op.create_index("ix_layers_diff_id", "layers", ["diff_id"])

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
        sa.PrimaryKeyConstraint("lock", "target", "toolchain", name="pk_bundles"),
    )

    op.create_table(
        "operations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON()),
        sa.Column("problem", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index("ix_operations_updated", "operations", ["updated"])

    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )

    op.create_table(
        "refusals",
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("refusal", sa.JSON(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("question", name="pk_refusals"),
    )
    op.create_index("ix_refusals_until", "refusals", ["until"])
