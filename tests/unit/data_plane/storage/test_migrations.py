import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import data_plane
from data_plane.storage.metadata import metadata
from data_plane.storage.service import MIGRATIONS
from faos_core.migrate import migrate


def import_tables() -> None:
    """Every area's `models.py`, so that its tables stand in the metadata."""
    for module in pkgutil.walk_packages(data_plane.__path__, "data_plane."):
        if module.name.count(".") == 2 and module.name.endswith(".models"):
            importlib.import_module(module.name)


@pytest.fixture
def connection(database_url: str) -> Iterator[sa.Connection]:
    """Of a database that was migrated from nothing."""
    migrate(database_url, MIGRATIONS)
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_the_migrated_schema_is_the_declared_one(connection: sa.Connection) -> None:
    """A column that only the code knows fails on every node that was installed before it."""
    import_tables()
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

    assert compare_metadata(context, metadata) == []
    assert "data_keys" in metadata.tables


def test_constraints_have_the_declared_names(connection: sa.Connection) -> None:
    """SQLite compares no names; PostgreSQL and later migrations find constraints by them."""
    import_tables()
    inspector = sa.inspect(connection)

    for table in metadata.tables.values():
        declared = {constraint.name for constraint in table.constraints if isinstance(constraint, sa.UniqueConstraint)}
        assert {constraint["name"] for constraint in inspector.get_unique_constraints(table.name)} == declared
        assert inspector.get_pk_constraint(table.name)["name"] == table.primary_key.name
        foreign = {constraint.name for constraint in table.foreign_key_constraints}
        assert {constraint["name"] for constraint in inspector.get_foreign_keys(table.name)} == foreign
