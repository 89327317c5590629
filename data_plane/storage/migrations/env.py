"""Alembic's entry for the node's database; run by faos_core.store.migrate over its open connection."""

from alembic import context

from data_plane.storage.metadata import metadata

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
