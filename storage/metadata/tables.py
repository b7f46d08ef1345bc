"""The tables. A change here is a migration in `migrations/versions` too (a test compares the two).

    locks ─┬─< lock_packages          for searching
           ├─< lock_namespaces        likewise
           ├─< resolutions            key → locks
           ├─< pins ──< pin_extensions
           └─< workloads (hold)
    bundles ──< bundle_parts >── contents, which layers need too; by digest alone, see storage/metadata/contents.py
    builds ──> contents               by digest alone too
    operations, leases, refusals,
    asked                             stand alone

Every query of storage.protocols is the read of one index: the comment on an index says of which query.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from storage.metadata.columns import ROW_NUMBER, DigestText, UtcDateTime

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

locks = Table(
    "locks",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("created", UtcDateTime, nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("targets", JSON, nullable=False),
    Column("package_count", Integer, nullable=False),
    # Last, so that a list does not read past it
    Column("content", LargeBinary, nullable=False),
    Index(None, "created", "digest"),  # page
)

lock_packages = Table(
    "lock_packages",
    metadata,
    Column("lock", DigestText, ForeignKey("locks.digest", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),  # in the order of the lock
    Column("name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),  # the lock's, so that an index has the order of a list
    Index(None, "name", "created", "lock"),  # page, by package
)

# Where a lock was ever pinned; whether a pin holds it still is for the reader to see.
lock_namespaces = Table(
    "lock_namespaces",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("lock", DigestText, ForeignKey("locks.digest", ondelete="CASCADE"), primary_key=True),
    Column("created", UtcDateTime, nullable=False),  # the lock's
    Index(None, "namespace", "created", "lock"),  # page, by namespace
)

resolutions = Table(
    "resolutions",
    metadata,
    Column("key", String, primary_key=True),
    Column("lock", DigestText, ForeignKey("locks.digest"), primary_key=True),
    Column("targets", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "key", "at", "lock"),  # resolutions
    Index(None, "lock", "key"),  # keys_of
)

pins = Table(
    "pins",
    metadata,
    Column("id", ROW_NUMBER, primary_key=True),
    Column("namespace", String, nullable=False),
    Column("workload", String, nullable=False),
    Column("revision", String, nullable=False),
    Column("key", String, nullable=False),
    Column("lock", DigestText, ForeignKey("locks.digest"), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("stale", Boolean, nullable=False),
    # The first writer wins: this decides who that is.
    UniqueConstraint("namespace", "workload", "revision", "key"),  # get; newest_pins
    Index(None, "namespace", "workload", "key", "stale", "created", "id"),  # newest
    Index(None, "created", "id"),  # page
    Index(None, "namespace", "created", "id"),  # page, by namespace
    Index(None, "lock", "namespace"),  # locks, by namespace
    Index(None, "lock", "created", "id"),  # holders, holds; page, by lock
)

pin_extensions = Table(
    "pin_extensions",
    metadata,
    Column("pin", ROW_NUMBER, ForeignKey("pins.id", ondelete="CASCADE"), primary_key=True),
    # In the order of their writing. Two writers that read the same pin want the same position: one of them has it.
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("target", String, nullable=False),
    Column("lock", DigestText, ForeignKey("locks.digest"), nullable=False),
    UniqueConstraint("pin", "target"),  # the first writer wins here too
    Index(None, "lock", "pin"),  # holders, holds; page, by lock
)

workloads = Table(
    "workloads",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("workload", String, primary_key=True),
    Column("refreshes", Integer, nullable=False),
    Column("refreshed_at", UtcDateTime),
    Column("hold_lock", DigestText, ForeignKey("locks.digest")),
    Column("hold_at", UtcDateTime),
    Column("seen", UtcDateTime),
)

layers = Table(
    "layers",
    metadata,
    Column("wheel", DigestText, primary_key=True),
    Column("python", String, primary_key=True),
    Column("toolchain", String, primary_key=True),
    Column("digest", DigestText, nullable=False, index=True),  # what needs a content
    Column("size", BigInteger, nullable=False),
    Column("diff_id", DigestText, nullable=False, index=True),  # layer_by_diff_id
    Column("tar_size", BigInteger, nullable=False),
    Column("unpacked_size", BigInteger, nullable=False),
    Column("listing", DigestText, nullable=False, index=True),  # what needs a content
    Column("has_pth", Boolean, nullable=False),
    Column("has_bytecode", Boolean, nullable=False),
)

bundles = Table(
    "bundles",
    metadata,
    # No foreign key: a lock is known only once its first bundle is there.
    Column("lock", DigestText, primary_key=True),
    Column("target", String, primary_key=True),
    Column("toolchain", String, primary_key=True),
    Column("digest", DigestText, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("unpacked_size", BigInteger, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("used", UtcDateTime, nullable=False, index=True),  # held, by use
    Index(None, "digest"),  # use, locks_of, what needs a content
)

# A row for every blob, written before the blob is and deleted once the blob is gone.
contents = Table(
    "contents",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("size", BigInteger),  # bytes, once a collection has seen the blob
    Column("marked", UtcDateTime),
)

# Of equal bundles, however many locks they are from, once: the manifest itself, and all that it names.
bundle_parts = Table(
    "bundle_parts",
    metadata,
    Column("bundle", DigestText, primary_key=True),
    Column("part", DigestText, primary_key=True),
    Index(None, "part", "bundle"),  # what needs a content
)

builds = Table(
    "builds",
    metadata,
    Column("id", String, primary_key=True),
    Column("sdist", DigestText, nullable=False),
    Column("requirements", DigestText, nullable=False),
    Column("target", String, nullable=False),
    Column("builder", String, nullable=False),
    Column("wheel", DigestText, nullable=False, index=True),  # what needs a content, what is held
    Column("filename", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("reproducible", Boolean, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("log", String, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False, index=True),  # delete_before
    Column("progress", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("problem", JSON(none_as_null=True)),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),  # microseconds since 1970, by the database's clock
)

refusals = Table(
    "refusals",
    metadata,
    Column("question", String, primary_key=True),
    Column("refusal", JSON, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Index(None, "until"),  # put
)

asked = Table(
    "asked",
    metadata,
    Column("key", String, primary_key=True),
    Column("target", String, primary_key=True),
    Column("request", JSON, nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("last", UtcDateTime, nullable=False, index=True),  # most, delete_before
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("namespace", String, nullable=False),
    Column("target", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("failed", UtcDateTime),
    Column("problem", JSON(none_as_null=True)),
    Index(None, "failed", "namespace", "created"),  # waiting, put, fail
)
