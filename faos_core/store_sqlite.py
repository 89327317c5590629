"""SQLite in WAL mode: readers never wait for the writer, a commit is on disk when it returns."""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from faos_core.errors import FaosError, IntegrityError, SetupError, UnavailableError
from faos_core.store_dialect import KEEP, MARK, Failure
from faos_core.store_errors import CORRUPT, DISK_FAILED, DISK_FULL, UNAVAILABLE, URL_UNSUPPORTED

BUSY_TIMEOUT_MS = 5_000
BUSY_RETRY_S = 0.01
BEGIN_WRITING = "BEGIN IMMEDIATE"  # with the write lock at once: a later upgrade of a read lock cannot wait, it fails
LEAST_ROOM_BYTES = 64 << 10  # of the WAL's index and first pages


class KeptTransactions:
    """Over one connection that is kept, because it cannot be lost. Implements Transactions.

    To SQLAlchemy it is one transaction, for as long as the connection is kept; the driver begins and ends those that
    there are. Through SQLAlchemy each took 30 µs more, a tenth of what a step's write costs.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None
        self._outer: sa.RootTransaction | None = None
        self._driver: Any = None  # sqlite3.Connection

    def begin(self, *, serial: bool) -> sa.Connection:
        if self._connection is not None:
            self._driver.execute(BEGIN_WRITING)
            return self._connection
        self._connection = self._engine.connect()
        self._outer = self._connection.begin()  # and the engine begins by the driver
        self._driver = self._connection.connection.dbapi_connection
        return self._connection

    def is_open(self) -> bool:
        if self._connection is None or self._connection.get_transaction() is not self._outer:
            return False
        return bool(self._driver.in_transaction)

    def commit(self) -> None:
        self._driver.commit()

    def rollback(self) -> None:
        self._driver.rollback()

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class SQLiteDialect:
    """One file. Its write lock excludes other processes; a transaction that cannot have it in 5 s fails."""

    def __init__(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise SetupError(URL_UNSUPPORTED, database=url.render_as_string())
        self._url = url
        self.database = url.database

    def prepare(self) -> None:
        """Make the file readable by its owner alone; SQLite gives its WAL the same mode.

        A file that is there is not opened: closing it again would drop the locks that SQLite holds on it in this
        process (POSIX; https://sqlite.org/howtocorrupt.html, 2.2).
        """
        try:
            with suppress(FileExistsError):
                os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            Path(self.database).chmod(0o600)
        except OSError as error:
            raise SetupError(DISK_FAILED, database=self.database) from error

    def engine(self, *, pool_size: int, writable: bool, sole: bool = False) -> sa.Engine:
        """sole: a plane guards the folder that the file is in; nothing to do here."""
        engine = sa.create_engine(self._url, pool_size=pool_size, max_overflow=0, hide_parameters=True)
        sa.event.listen(engine, "connect", set_pragmas if writable else set_reader_pragmas)
        sa.event.listen(engine, "begin", begin_immediate if writable else begin_deferred)
        return engine

    def transactions(self, engine: sa.Engine) -> "KeptTransactions":
        return KeptTransactions(engine)

    def mark_next(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(KEEP)
        connection.exec_driver_sql(MARK)

    def transaction_id(self, connection: sa.Connection) -> str:
        """A local file answers: COMMIT that returned has happened, one that raised has not."""
        return ""

    def committed(self, engine: sa.Engine, transaction_id: str) -> bool | None:
        return False

    def purge(self, engine: sa.Engine, rewrite: Sequence[sa.Table]) -> bool:
        """Pages are zeroed where they are deleted from (secure_delete); older copies of them stand in the WAL."""
        with closing(engine.raw_connection()) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def failure(self, error: BaseException) -> Failure:
        """The driver has waited for the lock already."""
        return Failure.FINAL

    def explain(self, error: BaseException) -> FaosError | None:
        origin = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        match code:
            case sqlite3.SQLITE_FULL:
                return SetupError(DISK_FULL, database=self.database)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self.unavailable()
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return IntegrityError(CORRUPT, database=self.database)
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return SetupError(DISK_FULL if is_full(Path(self.database)) else DISK_FAILED, database=self.database)
        return None

    def unavailable(self) -> UnavailableError:
        look = f"see who has it open: fuser -v {self.database}"
        return UnavailableError(UNAVAILABLE, database=self.database, look=look)

    async def hear(self, woken: Callable[[], None]) -> None:
        """A file tells nobody."""


def is_full(file: Path) -> bool:
    """Whether its disk has no room to open it in: SQLite's own files beside it cannot be made, and it does not say
    why."""
    with suppress(OSError):
        disk = os.statvfs(file.parent)
        return disk.f_bavail * disk.f_frsize < LEAST_ROOM_BYTES
    return False


def set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    """Every connection: we begin transactions, not the driver; nothing temporary and nothing deleted stays on disk."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    switch_to_wal(connection, until_s=time.monotonic() + BUSY_TIMEOUT_MS / 1000)
    for pragma in ("synchronous=FULL", "temp_store=MEMORY", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def switch_to_wal(connection: sqlite3.Connection, *, until_s: float) -> None:
    """The one statement that does not obey busy_timeout: two first starts at once would fail without these retries."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(BUSY_RETRY_S)


def set_reader_pragmas(connection: sqlite3.Connection, record: object) -> None:
    set_pragmas(connection, record)
    connection.execute("PRAGMA query_only=ON")


def begin_immediate(connection: sa.Connection) -> None:
    begin(connection, BEGIN_WRITING)


def begin_deferred(connection: sa.Connection) -> None:
    begin(connection, "BEGIN")


def begin(connection: sa.Connection, statement: str) -> None:
    """By the driver: there is nothing to compile. Raises sqlite3.Error."""
    driver: Any = connection.connection.dbapi_connection
    driver.execute(statement)
