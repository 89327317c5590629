"""Pages: every row once, whatever the size, and tokens that belong to one list only."""

import base64
import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from control_plane.db.errors import PAGE_TOKEN_INVALID
from control_plane.db.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, fetch_page
from faos_core.errors import InvalidError

metadata = sa.MetaData()
things = sa.Table("things", metadata, sa.Column("name", sa.String), sa.Column("number", sa.BigInteger))
Key = tuple[str, int]


@pytest.fixture(scope="module")
def engine() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def page(connection: sa.Connection, size: int, token: str, *, newest_first: bool = False, scope: str = "s"):
    rows, next_token = fetch_page(
        connection,
        sa.select(things),
        keys=[things.c.name, things.c.number],
        scope=scope,
        page_size=size,
        page_token=token,
        newest_first=newest_first,
    )
    return [(row.name, row.number) for row in rows], next_token


def fill(connection: sa.Connection, rows: set[Key]) -> None:
    connection.execute(things.delete())
    if rows:
        connection.execute(things.insert(), [{"name": name, "number": number} for name, number in rows])


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["C", "Z"]), max_size=5)
ROWS = st.sets(st.tuples(NAMES, st.integers(-(2**63), 2**63 - 1)), max_size=30)


@given(rows=ROWS, size=st.integers(1, 12), newest_first=st.booleans())
def test_pages_hold_every_row_once_in_order(engine: sa.Engine, rows: set[Key], size: int, newest_first: bool) -> None:
    """A list that loses or doubles a node would be believed."""
    with engine.begin() as connection:
        fill(connection, rows)

        seen, token, pages = [], "", 0
        while not pages or token:
            part, token = page(connection, size, token, newest_first=newest_first)
            seen += part
            pages += 1

    assert seen == sorted(rows, key=lambda row: (row[0].encode(), row[1]), reverse=newest_first)
    assert pages == max(1, -(-len(rows) // size))


def test_rows_that_come_meanwhile_move_nobody(engine: sa.Engine) -> None:
    """Offsets would show a row twice here."""
    with engine.begin() as connection:
        fill(connection, {("b", 0), ("c", 0), ("d", 0)})
        first, token = page(connection, 2, "")
        connection.execute(things.insert().values(name="a", number=0))

        second, _ = page(connection, 2, token)

    assert first + second == [("b", 0), ("c", 0), ("d", 0)]


def test_page_size_has_a_default_and_a_bound(engine: sa.Engine) -> None:
    """One request must not read a whole database."""
    with engine.begin() as connection:
        fill(connection, {("n", number) for number in range(MAX_PAGE_SIZE + 1)})

        assert len(page(connection, 0, "")[0]) == DEFAULT_PAGE_SIZE
        assert len(page(connection, MAX_PAGE_SIZE * 9, "")[0]) == MAX_PAGE_SIZE


def test_a_token_of_another_list_is_refused(engine: sa.Engine) -> None:
    """Changing the filter between pages would silently skip rows (AIP-158)."""
    with engine.begin() as connection:
        fill(connection, {("a", 0), ("b", 0)})
        _, token = page(connection, 1, "", scope="nodes/acme")

        with pytest.raises(InvalidError) as caught:
            page(connection, 1, token, scope="nodes/other")

    assert caught.value.code is PAGE_TOKEN_INVALID


def forged(*body: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
def scope_digest(engine: sa.Engine) -> str:
    with engine.begin() as connection:
        fill(connection, {("a", 0), ("b", 0)})
        _, token = page(connection, 1, "")
    return json.loads(base64.urlsafe_b64decode(token + "=="))[0]


@pytest.mark.parametrize(
    "keys", [[], ["a"], ["a", "0"], ["a", 2**63], ["a", True], ["a", 1.5], [1, 1], ["\0", 1], ["a", None], ["a", [1]]]
)
def test_forged_keys_are_refused(engine: sa.Engine, scope_digest: str, keys: list[object]) -> None:
    """What the column cannot hold would fail in the driver, as a defect of ours."""
    with engine.begin() as connection, pytest.raises(InvalidError):
        page(connection, 1, forged(scope_digest, *keys))


@given(token=st.one_of(st.text(min_size=1), st.binary(min_size=1).map(lambda raw: base64.b64encode(raw).decode())))
def test_garbage_is_never_a_token(engine: sa.Engine, token: str) -> None:
    """Fuzz: anything but our own token is the caller's mistake, never a crash."""
    with engine.begin() as connection, pytest.raises(InvalidError):
        page(connection, 1, token)


def test_a_deeply_nested_token_is_refused(engine: sa.Engine) -> None:
    """The parser recurses; the length bound keeps it shallow."""
    token = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with engine.begin() as connection, pytest.raises(InvalidError):
        page(connection, 1, token)
