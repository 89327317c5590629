"""Alembic's entry: migrates over the connection that `faos_core.migrate.migrate` opened, inside its transaction."""

from alembic import context

from control_plane.db.models import metadata

attributes = context.config.attributes
connection = attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=attributes["version_table"],
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
