"""What tests do to a database behind the services' back, in the words of each engine."""

import sqlalchemy as sa

SQLITE_TRIGGER = "CREATE TRIGGER broken BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END"
POSTGRES_TRIGGER = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{message}'; END $$;
CREATE TRIGGER broken BEFORE INSERT ON {table} EXECUTE FUNCTION broken()
"""


def refuse_inserts(connection: sa.Connection, table: str, message: str) -> None:
    """Every insert into the table fails with this message from now on."""
    trigger = POSTGRES_TRIGGER if connection.dialect.name == "postgresql" else SQLITE_TRIGGER
    connection.exec_driver_sql(trigger.format(table=table, message=message))
