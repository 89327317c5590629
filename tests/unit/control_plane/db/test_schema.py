"""The schema: what migrations make is what the code reads, on both engines."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.schema import CreateIndex, CreateTable

from control_plane.db.models import UtcDateTime, metadata, sites, tenants
from control_plane.db.schema import migrate_schema
from tests.servers.postgres import PostgresServer


def shape(engine: sa.Engine) -> dict[str, Any]:
    """Everything that a reader of the schema could notice, but the version table."""
    inspector = sa.inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"], column.get("primary_key"))
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": sorted(map(repr, inspector.get_foreign_keys(table))),
            "unique": sorted(map(repr, inspector.get_unique_constraints(table))),
            "indexes": sorted(map(repr, inspector.get_indexes(table))),
        }
        for table in sorted(inspector.get_table_names())
        if table != "alembic_version"
    }


@pytest.fixture
def migrated(database_url: str) -> Iterator[sa.Engine]:
    migrate_schema(database_url)
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def declared(database_url: str, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """Another database of the same engine."""
    if not database_url.startswith("sqlite"):
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as name:
            yield from created(sa.create_engine(server.url(name)))
        return
    yield from created(sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool))


def created(engine: sa.Engine) -> Iterator[sa.Engine]:
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_schema_after_upgrade_equals_the_models(migrated: sa.Engine, declared: sa.Engine) -> None:
    """A migration that forgets a column breaks only on machines that upgrade, so it must break here."""
    assert shape(migrated) == shape(declared)
    with migrated.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tenants ADD COLUMN extra TEXT",
        "DROP INDEX ix_nodes_tenant_site",
        "CREATE TABLE more (id INTEGER)",
        "ALTER TABLE nodes RENAME COLUMN version TO release",
    ],
)
def test_shape_tells_schemas_apart(migrated: sa.Engine, declared: sa.Engine, change: str) -> None:
    """The comparison above must be able to fail."""
    with migrated.begin() as connection:
        connection.exec_driver_sql(change)

    assert shape(migrated) != shape(declared)


def test_migrating_again_changes_nothing(migrated: sa.Engine) -> None:
    """Every start migrates."""
    before = shape(migrated)

    migrate_schema(migrated.url.render_as_string(hide_password=False))

    assert shape(migrated) == before


def test_tables_can_be_written_for_postgresql() -> None:
    """The models stay portable: a type or default of one engine only would not compile for the other."""
    dialect = postgresql.dialect()

    statements = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]
    statements += [
        str(CreateIndex(index).compile(dialect=dialect)) for table in metadata.sorted_tables for index in table.indexes
    ]

    assert len(statements) > len(metadata.tables)
    assert not any("SERIAL" in statement for statement in statements)  # every key is ours to give
    assert "TIMESTAMP WITH TIME ZONE" in statements[0]


def test_every_index_and_constraint_has_a_name() -> None:
    """A later migration can only change what it can name, and the names differ between engines when left out."""
    for table in metadata.tables.values():
        for constraint in table.constraints:
            assert constraint.name, table.name
        for index in table.indexes:
            assert index.name, table.name


def test_times_come_back_aware_and_equal(declared: sa.Engine) -> None:
    """SQLite drops zones; a naive time compared with an aware one raises in the middle of a request."""
    tokyo = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=9)))
    with declared.begin() as connection:
        connection.execute(tenants.insert().values(name="t", created_at=tokyo, tuf_root=b""))

        back = connection.execute(sa.select(tenants.c.created_at)).scalar_one()

    assert back == tokyo
    assert back.tzinfo is UTC


def test_a_time_without_zone_is_refused(declared: sa.Engine) -> None:
    """Its zone would be a guess."""
    naive = datetime(2026, 1, 2)
    with declared.begin() as connection, pytest.raises(StatementError):
        connection.execute(tenants.insert().values(name="t", created_at=naive, tuf_root=b""))


def test_absent_times_stay_absent() -> None:
    """Null means "never" in several columns."""
    dialect = postgresql.dialect()

    assert UtcDateTime().process_bind_param(None, dialect) is None
    assert UtcDateTime().process_result_value(None, dialect) is None


def test_a_site_without_its_tenant_is_refused(migrated: sa.Engine) -> None:
    """The database itself keeps what belongs to nobody out."""
    row = {"tenant": "nobody", "name": "s", "labels": {}, "created_at": datetime.now(UTC)}
    with migrated.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        with pytest.raises(IntegrityError):
            connection.execute(sites.insert().values(row))
