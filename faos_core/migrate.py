"""Bringing a database to a version's schema, with Alembic.

Migrations expand first and contract a release later (docs/ops/databases.md): on PostgreSQL, processes of the version
before go on working while one of the next version migrates.
"""

from pathlib import Path

import sqlalchemy as sa

from faos_core.errors import SetupError
from faos_core.store import dialect_for
from faos_core.store_errors import SCHEMA_NEWER

# A migration that cannot have its locks soon must fail, not stop the service that runs meanwhile.
POSTGRES_LOCK_TIMEOUT = "10s"
POSTGRES_STATEMENT_TIMEOUT = "300s"


def migrate(url: str, script_location: Path, *, version_table: str = "alembic_version", sole: bool = False) -> None:
    """Bring the schema to the newest revision in `script_location`, in one transaction. Blocks: call in a thread.

    The folder's `env.py` finds the open connection in `context.config.attributes["connection"]`, and the table's name
    in `attributes["version_table"]`. Several processes may call at once: one migrates, the others wait for it; so do
    the serial writes of stores. sole: as of `Store`.
    Raises: SetupError (store.schema_newer: nothing was changed), and as `Store` does.
    """
    dialect = dialect_for(url)
    dialect.prepare()
    engine = dialect.engine(pool_size=1, writable=True, sole=sole)
    try:
        with engine.begin() as connection:
            upgrade(connection, script_location, version_table, database=dialect.database)
    except Exception as error:
        if ours := dialect.explain(error):
            raise ours from error
        raise
    finally:
        engine.dispose()


def upgrade(connection: sa.Connection, script_location: Path, version_table: str, *, database: str) -> None:
    """The part of `migrate` inside the transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection, "version_table": version_table})
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    for revision in context.get_current_heads():
        if revision not in known:
            raise SetupError(SCHEMA_NEWER, database=database, revision=revision)
    limit_waiting(connection)
    command.upgrade(config, "head")


def limit_waiting(connection: sa.Connection) -> None:
    """For this transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{POSTGRES_LOCK_TIMEOUT}'")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{POSTGRES_STATEMENT_TIMEOUT}'")
