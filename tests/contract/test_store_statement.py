"""Statements that go past SQLAlchemy on SQLite mean the same there as on PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from faos_core.store import Store
from faos_core.store_statement import HotStatement


class Even(sa.types.TypeDecorator[int]):
    """Half of it is kept; it takes no odd number."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int | None:
        if value is not None and value % 2:
            raise ValueError("odd")
        return value and value // 2


metadata = sa.MetaData()
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("body", sa.LargeBinary),
    sa.Column("half", Even),
)
ADD = HotStatement(sa.insert(marks), columns=("id", "text", "body", "half"))
CHANGE = HotStatement(
    sa.update(marks).where(marks.c.id == sa.bindparam("at"), marks.c.text == "old").values(half=sa.bindparam("new"))
)
RAISE = HotStatement(
    sa.update(marks)
    .values(id=marks.c.id + 1, half=2)
    .where(marks.c.id == sa.bindparam("at"))
    .returning(marks.c.id, marks.c.text)
)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store(database_url) as store:
        await store.write(metadata.create_all)
        yield store


def rows(connection: sa.Connection) -> list[tuple[object, ...]]:
    raw = sa.text("SELECT id, text, body, half FROM marks ORDER BY id")
    return [tuple(row) for row in connection.execute(raw)]


async def test_values_pass_their_types_and_rows_are_counted(store: Store) -> None:
    """A count that were wrong would have a recorded step recorded again; a type that were left out would let plain text
    into the database."""

    def write(connection: sa.Connection) -> list[int]:
        ADD.run(connection, {"id": 1, "text": "old", "body": b"\x00\xff", "half": 10})
        ADD.run(connection, {"id": 2, "text": None, "body": None, "half": None})
        return [CHANGE.run(connection, {"at": at, "new": 8}) for at in (1, 2, 3)]

    assert await store.write(write) == [1, 0, 0]
    assert await store.read(rows) == [(1, "old", b"\x00\xff", 4), (2, None, None, None)]


async def test_returned_rows_are_those_that_were_changed(store: Store) -> None:
    """The next number of an event is what the database says, not what was guessed."""

    def write(connection: sa.Connection) -> list[tuple[object, ...]]:
        ADD.run(connection, {"id": 1, "text": "old", "body": None, "half": None})
        return [tuple(row) for at in (1, 1) for row in RAISE.rows(connection, {"at": at})]

    assert await store.write(write) == [(2, "old")]
    assert await store.read(rows) == [(2, "old", None, 1)]


@pytest.mark.parametrize("statement", ["insert", "update"])
async def test_value_that_its_type_refuses_is_refused_and_nothing_is_written(store: Store, statement: str) -> None:
    """What keeps plain text out of sealed columns is a type that refuses."""
    await store.write(lambda connection: ADD.run(connection, {"id": 1, "text": "old", "body": None, "half": 2}))

    def write(connection: sa.Connection) -> None:
        if statement == "insert":
            ADD.run(connection, {"id": 2, "text": "new", "body": None, "half": 3})
        else:
            CHANGE.run(connection, {"at": 1, "new": 3})

    with pytest.raises((ValueError, sa.exc.StatementError), match="odd"):
        await store.write(write)
    assert await store.read(rows) == [(1, "old", None, 1)]


async def test_statement_that_fails_undoes_its_own_write_alone(store: Store) -> None:
    """A repeated key must not take the writes of other runs with it, nor leave the writer in the middle of one."""
    add = {"id": 1, "text": "old", "body": None, "half": None}
    await store.write(lambda connection: ADD.run(connection, add))

    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        await store.write(lambda connection: ADD.run(connection, add))
    await store.write(lambda connection: ADD.run(connection, {**add, "id": 2}))

    assert [row[0] for row in await store.read(rows)] == [1, 2]
