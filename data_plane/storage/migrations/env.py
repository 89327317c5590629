"""Alembic's entry for the node's database; run by faos_core.migrate.migrate over its open connection."""

from alembic import context

from data_plane.storage.metadata import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table=context.config.attributes["version_table"],
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
