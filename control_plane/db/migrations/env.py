"""Alembic's entry: migrates over the connection that `faos_core.store.migrate` opened, inside its transaction."""

from alembic import context

from control_plane.db.models import metadata

attributes = context.config.attributes
connection = attributes["connection"]
if connection.dialect.name == "postgresql":
    # A migration that cannot have its locks at once must fail, not stop the service that runs meanwhile.
    connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = '300s'")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=attributes["version_table"],
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
