"""Statements that are run for each step of each run: on SQLite by the driver, without what SQLAlchemy does each time.

A statement takes SQLAlchemy five times as long as SQLite, and more where it has to be fetched into the caches first, as
in a node that does little. A server is further away than that: on PostgreSQL they are run like all others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    places: tuple[Place, ...]

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """What goes into the places, in their order."""
        found: list[Any] = []
        for place in self.places:
            if not place.name:
                found.append(place.constant)
            elif place.process:
                found.append(place.process(values[place.name]))
            else:
                found.append(values[place.name])
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
    return Compiled(str(made), tuple(place_of(made.binds[name], name, dialect) for name in made.positiontup or ()))


def place_of(value: "sa.BindParameter[Any]", name: str, dialect: sa.Dialect) -> Place:
    process = value.type.dialect_impl(dialect).bind_processor(dialect)
    if value.required:
        return Place(name, process)
    return Place("", constant=process(value.value) if process else value.value)
