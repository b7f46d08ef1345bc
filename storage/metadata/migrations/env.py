"""What alembic runs; the connection is the one that `bring_up_to_date` was given."""

from alembic import context

from storage.metadata.tables import metadata

# The whole upgrade is one transaction, its caller's: a crash or a second opener never sees half of it.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
