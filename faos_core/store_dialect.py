"""What differs between database engines, behind one Protocol."""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

import sqlalchemy as sa

from faos_core.errors import FaosError, UnavailableError

MARK = "SAVEPOINT write_begin"
KEEP = "RELEASE SAVEPOINT write_begin"
UNDO = "ROLLBACK TO SAVEPOINT write_begin"
SERIAL = "serial"  # execution option of an engine; unset means True
WAKE_CHANNEL = "faos_changes"


class Failure(Enum):
    """What a failed transaction means for trying it again."""

    FINAL = auto()  # it would fail again, or whether it would is not ours to say
    CONFLICT = auto()  # it got in another transaction's way and was undone
    CONNECTION_LOST = auto()


class Transactions(Protocol):
    """The writer's, in its thread: one after the other, each over the whole of a batch."""

    def begin(self, *, serial: bool) -> sa.Connection:
        """What is executed on the connection belongs to the transaction, until `commit` or `rollback`."""

    def is_open(self) -> bool:
        """Whether the transaction that was begun last still goes on. An error may have ended it in the database, and a
        careless caller on the connection."""

    def commit(self) -> None:
        """Durable when it returns. Nothing where it was rolled back."""

    def rollback(self) -> None:
        """Undo the transaction."""

    def release(self) -> None:
        """Undo what is open, and give the connection back: what may be wrong with it is found out there. Idempotent."""


class Dialect(Protocol):
    """One database of one engine. Thread-safe."""

    database: str  # as a person knows it; no credentials

    def prepare(self) -> None:
        """Make what must be there before the first connection. May block."""

    def engine(self, *, pool_size: int, writable: bool, sole: bool = False) -> sa.Engine:
        """An engine whose transactions are durable at commit, or read-only snapshots.

        Writing transactions exclude each other, whatever process they are in, but for those of an engine with the
        execution option serial=False. sole: connect only while no other process is connected so.
        """

    def transactions(self, engine: sa.Engine) -> Transactions:
        """Of a writable engine, which nothing else may have a connection of meanwhile."""

    def mark_next(self, connection: sa.Connection) -> None:
        """Keep what was done since the last savepoint, and set the next."""

    def transaction_id(self, connection: sa.Connection) -> str:
        """Names the transaction for `committed`; "" where its outcome never needs to be asked for."""

    def committed(self, engine: sa.Engine, transaction_id: str) -> bool | None:
        """Whether that transaction was committed; None while it is not over. Raises what the driver raises."""

    def purge(self, engine: sa.Engine, rewrite: Sequence[sa.Table]) -> bool:
        """Remove deleted content; whether that could be finished. See Store.purge."""

    def failure(self, error: BaseException) -> Failure:
        """Whether to try again after a driver's error."""

    def explain(self, error: BaseException) -> FaosError | None:
        """What a driver's error means to us; None for one that is the caller's own (a constraint, bad SQL)."""

    def unavailable(self) -> UnavailableError:
        """store.unavailable, with where to look."""

    async def hear(self, woken: Callable[[], None]) -> None:
        """See Store.hear."""


def wake_others(connection: sa.Connection) -> None:
    """Have every process that hears (`Store.hear`) woken when the caller's transaction is committed, if it is, and
    where the engine can tell. It carries no content: who is woken looks."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {WAKE_CHANNEL}")
