"""Every store of customer data can be erased by subject (DESIGN section 8)."""

import importlib
import pkgutil

import pytest
import sqlalchemy as sa

import data_plane
from data_plane.storage.erasure import ERASABLES, Erasable, SubjectRows
from data_plane.storage.metadata import metadata
from data_plane.storage.sealed import Sealed, sealed_columns


def tables_of_areas() -> list[sa.Table]:
    """The node's tables, after every area's `models.py` was imported."""
    for module in pkgutil.walk_packages(data_plane.__path__, "data_plane."):
        if module.name.count(".") == 2 and module.name.endswith(".models"):
            importlib.import_module(module.name)
    return list(metadata.tables.values())


def unerasable(tables: list[sa.Table], erasables: list[Erasable]) -> list[str]:
    """Names of tables with a sealed column that nobody answers for."""
    covered = {table.name for erasable in erasables for table in erasable.tables}
    return [table.name for table in tables if sealed_columns(table) and table.name not in covered]


def test_every_table_with_a_sealed_column_belongs_to_an_erasable() -> None:
    """What is not registered is not erased when a person asks to be forgotten."""
    assert unerasable(tables_of_areas(), list(ERASABLES.values())) == []


def test_rows_erased_by_subject_carry_one() -> None:
    """`SubjectRows` finds rows by this column only."""
    tables_of_areas()

    for erasable in ERASABLES.values():
        if isinstance(erasable, SubjectRows):
            assert all("subject_index" in table.c for table in erasable.tables), erasable.name


@pytest.mark.parametrize(
    ("column", "registered", "missing"), [(Sealed, False, ["t"]), (Sealed, True, []), (sa.Text, False, [])]
)
def test_the_check_sees_a_table_that_is_not_registered(
    column: type[sa.types.TypeEngine[object]], registered: bool, missing: list[str]
) -> None:
    """A check that finds nothing wrong must be able to."""
    table = sa.Table("t", sa.MetaData(), sa.Column("body", column))
    erasables: list[Erasable] = [SubjectRows("t", (table,))] if registered else []

    assert unerasable([table], erasables) == missing
