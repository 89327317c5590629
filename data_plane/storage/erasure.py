"""Erasing a data subject: its key is destroyed, and every store of customer data removes what it holds.

Every table with a `Sealed` column belongs to a registered `Erasable`; tests/arch/test_erasable.py sees to it.
Register in the `models.py` that defines the table.
"""

from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from data_plane.storage.errors import ERASABLE_TWICE, SUBJECT_EMPTY
from data_plane.storage.keys import KeyRing
from data_plane.storage.models import data_keys
from faos_core.errors import InternalError, InvalidError
from faos_core.store import Store


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose data is erased."""

    name: str
    index: bytes  # what stands for the name in `subject_index` columns


class Erasable(Protocol):
    """A store of customer data."""

    @property
    def name(self) -> str:
        """Of the area and what it stores: "agents.runs"."""

    @property
    def tables(self) -> tuple[sa.Table, ...]:
        """Every table that it answers for."""

    def erase(self, connection: sa.Connection, subject: Subject) -> None:
        """Remove what is the subject's, inside this transaction. Idempotent."""


@dataclass(frozen=True, slots=True)
class SubjectRows:
    """An Erasable whose rows carry their subject in a column `subject_index`. Children before parents."""

    name: str
    tables: tuple[sa.Table, ...]

    def erase(self, connection: sa.Connection, subject: Subject) -> None:
        for table in self.tables:
            connection.execute(table.delete().where(table.c.subject_index == subject.index))


ERASABLES: dict[str, Erasable] = {}


def register(erasable: Erasable) -> None:
    """Once per store, at import. Raises InternalError for a name that is taken."""
    if erasable.name in ERASABLES:
        raise InternalError(ERASABLE_TWICE, name=erasable.name)
    ERASABLES[erasable.name] = erasable


async def erase_subject(store: Store, keys: KeyRing, subject: str) -> None:
    """Destroy the subject's key and remove its rows, in one transaction; then purge the files of what was deleted.

    When it returns, nothing that was sealed for the subject can be opened, from any copy of this database that was
    made afterwards or without the site key. On PostgreSQL, "this database" are its tables: the server's log (WAL) and
    its archive hold the wrapped key until they are recycled, and it opens with the site key only, which is not there.
    Idempotent: call again after a failure.
    Raises: InvalidError (storage.subject_empty), and as `Store.write` and `Store.purge` do.
    """
    if not subject:
        raise InvalidError(SUBJECT_EMPTY)
    erased = Subject(subject, keys.subject_index(subject))
    await store.write(lambda connection: erase_in(connection, keys, erased))
    await store.purge(rewrite=[data_keys])


def erase_in(connection: sa.Connection, keys: KeyRing, subject: Subject) -> None:
    """The part of `erase_subject` inside the transaction."""
    for erasable in ERASABLES.values():
        erasable.erase(connection, subject)
    keys.destroy(connection, subject.name)
