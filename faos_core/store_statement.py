"""Statements that are run for each step of each run: on SQLite by the driver, without what SQLAlchemy does each time.

A statement takes SQLAlchemy five times as long as SQLite, and more where it has to be fetched into the caches first, as
in a node that does little. A server is further away than that: on PostgreSQL they are run like all others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Of a value in a statement's text."""

    name: str  # "": the statement itself says the value
    process: Processor | None = None  # what the column's type makes of the value, and looks for in it
    constant: Any = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """For SQLite."""

    text: str
    named: Callable[[Mapping[str, Any]], Sequence[Any]]  # the values of the places that have a name, in their order
    processed: tuple[tuple[int, Processor], ...]  # where, among those
    constants: tuple[tuple[int, Any], ...]  # where, among all

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """What goes into the places, in their order."""
        found = list(self.named(values))
        for at, process in self.processed:
            found[at] = process(found[at])
        for at, constant in self.constants:
            found.insert(at, constant)
        return found


class HotStatement:
    """An INSERT or UPDATE. Values pass the types of their columns as ever: one that refuses a value refuses it here.

    Thread-safe. Raises sqlite3.Error where others raise DBAPIError; `faos_core.store` takes both.
    """

    def __init__(self, statement: sa.Insert | sa.Update, *, columns: Sequence[str] | None = None) -> None:
        """columns: of an INSERT, that it has values for each time; None where the statement says them."""
        self._statement = statement
        self._columns = columns
        self._compiled: Compiled | None = None

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """How many rows an UPDATE touched."""
        if connection.dialect.name == "sqlite":
            return int(self._driven(connection, values).rowcount)
        return connection.execute(self._statement, dict(values)).rowcount

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """What it returns: numbers and text, which no type has to make anything of."""
        if connection.dialect.name == "sqlite":
            return cast("Sequence[Sequence[Any]]", self._driven(connection, values).fetchall())
        return connection.execute(self._statement, dict(values)).all()

    def _driven(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        """The driver's cursor."""
        compiled = self._compiled
        if compiled is None:
            compiled = self._compiled = compiled_for(connection.dialect, self._statement, self._columns)
        driver: Any = connection.connection.dbapi_connection
        return driver.execute(compiled.text, compiled.filled(values))


def compiled_for(
    dialect: sa.Dialect, statement: sa.Insert | sa.Update, columns: Sequence[str] | None = None
) -> Compiled:
    made = statement.compile(dialect=dialect, column_keys=list(columns) if columns else None)
    if not isinstance(made, SQLCompiler):
        raise TypeError("not a statement of data")
    return filled_by(str(made), [place_of(made.binds[name], name, dialect) for name in made.positiontup or ()])


def filled_by(text: str, places: Sequence[Place]) -> Compiled:
    """With as little as can be left to do for each row."""
    named = [place for place in places if place.name]
    get: Any = itemgetter(*(place.name for place in named))
    return Compiled(
        text,
        get if len(named) > 1 else lambda values: (get(values),),
        tuple((at, place.process) for at, place in enumerate(named) if place.process),
        tuple((at, place.constant) for at, place in enumerate(places) if not place.name),
    )


def place_of(value: "sa.BindParameter[Any]", name: str, dialect: sa.Dialect) -> Place:
    process = value.type.dialect_impl(dialect).bind_processor(dialect)
    if value.required:
        return Place(name, process)
    return Place("", constant=process(value.value) if process else value.value)
