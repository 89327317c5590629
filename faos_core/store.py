"""The durable store of a plane: SQLAlchemy Core on threads that the store owns, with group commit.

The engine is synchronous: one writer thread, few reader threads, an asyncio surface. What only one database engine
does stands in `SQLiteDialect`; PostgreSQL is a second class with the same methods.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from faos_core.errors import FaosError, IntegrityError, InternalError, SetupError, UnavailableError, define

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

WAITING_WRITES = 10_000
WAITING_READS = 1_000
BATCH_WRITES = 1_000
BUSY_TIMEOUT_MS = 5_000
BUSY_RETRY_S = 0.01
CLOSE_TIMEOUT_S = 30.0

DISK_FULL = define(
    "store.disk_full",
    what="There is no space left for the database {database}.",
    why="The disk, or the quota of the user that runs FAOS, is full. Nothing acknowledged was lost.",
    next_step="Free space (see: df -h), then start again.",
)
UNAVAILABLE = define(
    "store.unavailable",
    what="The database {database} does not answer.",
    why="Another process holds it, or it is restarting. What was asked for was not written.",
    next_step="Try again. If it stays so, see who has it open: fuser -v {database}",
)
CORRUPT = define(
    "store.corrupt",
    what="The database {database} is damaged.",
    why="Its pages do not hold together: a broken disk, or a file that is no database of FAOS.",
    next_step="Stop FAOS, keep a copy of the file, and restore the last backup.",
)
DISK_FAILED = define(
    "store.disk_failed",
    what="The disk refused to read or write the database {database}.",
    why="The file may not be written to, or the disk is failing.",
    next_step="Look at the file's owner and mode (ls -l {database}) and at the kernel log (dmesg).",
)
CLOSED = define(
    "store.closed",
    what="The database {database} is not open.",
    why="FAOS is starting or stopping.",
    next_step="Try again when it runs.",
)
TRANSACTION_ENDED = define(
    "store.transaction_ended",
    what="A write to {database} ended the transaction that it shares with others.",
    why="This is a defect of FAOS. What of that batch was written is not known.",
    next_step="Report it, with the log.",
)
URL_UNSUPPORTED = define(
    "store.url_unsupported",
    what="{database} is no database that FAOS can use.",
    why="This version keeps its data in an SQLite file.",
    next_step="Give a URL such as sqlite:////var/lib/faos/node.db",
)
SCHEMA_NEWER = define(
    "store.schema_newer",
    what="The database {database} has schema {revision}, which this version of FAOS does not know.",
    why="A newer version has used it. An older one could damage what it wrote.",
    next_step="Install the newer version again, or restore the backup from before the upgrade.",
)


class Dialect(Protocol):
    """What differs between database engines."""

    database: str  # as a person knows it; no credentials

    def prepare(self) -> None:
        """Make what must be there before the first connection. May block."""

    def engine(self, *, pool_size: int, writable: bool) -> sa.Engine:
        """An engine whose transactions are durable at commit, or read-only snapshots."""

    def purge(self, engine: sa.Engine) -> bool:
        """Remove deleted content from every file; whether that could be finished."""

    def explain(self, error: BaseException) -> FaosError | None:
        """What a driver's error means to us; None for one that is the caller's own (a constraint, bad SQL)."""


class SQLiteDialect:
    """SQLite in WAL mode: readers never wait for the writer, a commit is on disk when it returns."""

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

    def engine(self, *, pool_size: int, writable: bool) -> sa.Engine:
        engine = sa.create_engine(self._url, pool_size=pool_size, max_overflow=0, hide_parameters=True)
        sa.event.listen(engine, "connect", set_pragmas if writable else set_reader_pragmas)
        sa.event.listen(engine, "begin", begin_immediate if writable else begin_deferred)
        return engine

    def purge(self, engine: sa.Engine) -> bool:
        """Pages are zeroed where they are deleted from (secure_delete); older copies of them stand in the WAL."""
        with closing(engine.raw_connection()) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def explain(self, error: BaseException) -> FaosError | None:
        origin = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
        match code:
            case sqlite3.SQLITE_FULL:
                return SetupError(DISK_FULL, database=self.database)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return UnavailableError(UNAVAILABLE, database=self.database)
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return IntegrityError(CORRUPT, database=self.database)
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return SetupError(DISK_FAILED, database=self.database)
        return None


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
    """Take the write lock at once: a later upgrade of a read lock cannot wait, it fails."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def begin_deferred(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def dialect_for(url: str) -> Dialect:
    """Raises SetupError for an engine that is not supported."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise SetupError(URL_UNSUPPORTED, database=parsed.render_as_string())
    return SQLiteDialect(parsed)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a piece of work came to; carried as a value, because a future cannot carry every exception."""

    value: T | None = None
    error: BaseException | None = None

    def unwrap(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only where T allows it


@dataclass(frozen=True, slots=True)
class WaitingWrite:
    work: Work[Any]
    outcome: asyncio.Future[Outcome[Any]]


class BatchLostError(Exception):
    """The database gave up the transaction of a whole batch; the cause says why."""


class Store:
    """One database, one writer, group commit. Belongs to one event loop.

    Order: `async with store`, then any number of concurrent `write` and `read`; leaving waits for the writes that
    were accepted, then closes. Afterwards, and before, both raise UnavailableError (store.closed).
    """

    def __init__(self, url: str, *, readers: int = 2) -> None:
        """url: of SQLAlchemy, e.g. "sqlite:////var/lib/faos/node.db". readers: threads that read at the same time.

        Raises: SetupError for an engine that is not supported.
        """
        self._dialect = dialect_for(url)
        self._reader_count = readers
        self._open = False
        self._committing = False
        self._waiting: list[WaitingWrite] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._write_slots = asyncio.Semaphore(WAITING_WRITES)
        self._read_slots = asyncio.Semaphore(WAITING_READS)

    async def __aenter__(self) -> "Store":
        """Open. Raises SetupError, UnavailableError or IntegrityError as the registry's store codes say."""
        self._loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(self._reader_count, thread_name_prefix="store-reader")
        self._write_engine = self._dialect.engine(pool_size=1, writable=True)
        self._read_engine = self._dialect.engine(pool_size=self._reader_count, writable=False)
        try:
            (await self._loop.run_in_executor(self._writer, self._connect)).unwrap()
            self._open = True
        finally:
            if not self._open:
                await asyncio.to_thread(self._close)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Refuse new work, finish what was accepted (at most 30 s), close."""
        self._open = False
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._idle.wait()
        finally:
            await asyncio.to_thread(self._close)

    async def write(self, fn: Work[T]) -> T:
        """Run `fn` in the writer thread and return what it returned, once it is durable.

        fn: gets a connection inside a transaction; it must not commit, and must not block on anything else. What it
            raises undoes its own changes and is raised here; its neighbours in the batch are not touched.
        At 10,000 waiting writes, further ones wait for a place. Cancelling the waiter drops a write that has not
        begun; one that has begun is written, or not, as a whole.
        Raises: SetupError (store.disk_full, store.disk_failed), UnavailableError (store.unavailable, store.closed),
            IntegrityError (store.corrupt): nothing was written.
        """
        self._check_open()
        await self._write_slots.acquire()
        self._check_open()
        write = WaitingWrite(fn, self._loop.create_future())
        self._waiting.append(write)
        self._idle.clear()
        if len(self._waiting) == 1:
            self._loop.call_soon(self._begin_batch)
        outcome: Outcome[T] = await write.outcome
        return outcome.unwrap()

    async def read(self, fn: Work[T]) -> T:
        """Run `fn` in a reader thread on one consistent snapshot, and return what it returned.

        fn: may only read. Raises what `write` raises, and what `fn` raises. Cancel-safe.
        """
        self._check_open()
        async with self._read_slots:
            outcome = await self._loop.run_in_executor(self._readers, self._snapshot, fn)
        return outcome.unwrap()

    async def purge(self) -> None:
        """Remove what was deleted before this call from every file of the database.

        Raises UnavailableError (store.unavailable) when a long read of the old state prevents it: call again.
        """
        self._check_open()
        (await self._loop.run_in_executor(self._writer, self._purge)).unwrap()

    def _check_open(self) -> None:
        if not self._open:
            raise UnavailableError(CLOSED, database=self._dialect.database)

    def _begin_batch(self) -> None:
        """Hand what waits to the writer thread, unless it is busy: it comes back here when it is done.

        Runs on the loop, after the tasks that the last batch woke, so that their next writes go together too.
        """
        if self._committing:
            return
        batch = self._take_batch()
        if not batch:
            self._idle.set()
            return
        self._committing = True
        done = self._loop.run_in_executor(self._writer, self._commit, [write.work for write in batch])
        done.add_done_callback(lambda outcomes: self._end_batch(batch, outcomes.result()))

    def _take_batch(self) -> list[WaitingWrite]:
        taken, self._waiting = self._waiting[:BATCH_WRITES], self._waiting[BATCH_WRITES:]
        for _ in taken:
            self._write_slots.release()
        batch = [write for write in taken if not write.outcome.cancelled()]
        return batch if batch or not self._waiting else self._take_batch()

    def _end_batch(self, batch: Sequence[WaitingWrite], outcomes: Sequence[Outcome[Any]]) -> None:
        for write, outcome in zip(batch, outcomes, strict=True):
            if not write.outcome.cancelled():
                write.outcome.set_result(outcome)
        self._committing = False
        self._loop.call_soon(self._begin_batch)

    def _commit(self, batch: Sequence[Work[Any]]) -> list[Outcome[Any]]:
        """In the writer thread: one transaction around all, one outcome each. Never raises."""
        try:
            with self._write_engine.begin() as connection:
                return [self._attempt(work, connection) for work in batch]
        except BatchLostError as lost:
            cause = lost.__cause__ or lost
        except BaseException as error:  # noqa: BLE001  (a supervisor: every waiter gets an answer)
            cause = error
        return [Outcome(error=self._lost(cause)) for _ in batch]

    def _attempt(self, work: Work[T], connection: sa.Connection) -> Outcome[T]:
        """One piece of work between savepoints. Raises BatchLostError when the savepoint went with the transaction."""
        connection.exec_driver_sql(
            "SAVEPOINT write_begin"
        )  # begin_nested compiles a new name each time: twice the cost
        try:
            outcome = Outcome(work(connection))
        except BaseException as error:  # noqa: BLE001  (a supervisor: whatever it is, it is raised at the waiter)
            outcome = Outcome(error=self._explained(error))
        try:
            if outcome.error is not None:
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT write_begin")
            connection.exec_driver_sql("RELEASE SAVEPOINT write_begin")
        except SQLAlchemyError as error:
            raise BatchLostError from outcome.error or error
        return outcome

    def _snapshot(self, work: Work[T]) -> Outcome[T]:
        """In a reader thread. Never raises."""
        try:
            with self._read_engine.connect() as connection:
                return Outcome(work(connection))
        except BaseException as error:  # noqa: BLE001  (a supervisor: whatever it is, it is raised at the waiter)
            return Outcome(error=self._explained(error))

    def _connect(self) -> Outcome[None]:
        """In the writer thread: the first connection, so that a database that cannot be used is known at once."""
        try:
            self._dialect.prepare()
            with self._write_engine.begin():
                return Outcome(None)
        except (FaosError, SQLAlchemyError, sqlite3.Error) as error:
            return Outcome(error=self._explained(error))

    def _purge(self) -> Outcome[None]:
        """In the writer thread, between batches."""
        try:
            if self._dialect.purge(self._write_engine):
                return Outcome(None)
            return Outcome(error=UnavailableError(UNAVAILABLE, database=self._dialect.database))
        except (SQLAlchemyError, sqlite3.Error) as error:
            return Outcome(error=self._explained(error))

    def _explained(self, error: BaseException) -> BaseException:
        """Our error for what the database reports about itself; else the error as it is."""
        ours = self._dialect.explain(error)
        if ours is None:
            return error
        ours.__cause__ = error
        return ours

    def _lost(self, cause: BaseException) -> FaosError:
        """A fresh error for each waiter of a batch that was not committed."""
        if isinstance(cause, FaosError):
            return type(cause)(cause.code, **cause.fields)
        ours = self._dialect.explain(cause) or InternalError(TRANSACTION_ENDED, database=self._dialect.database)
        ours.__cause__ = cause
        return ours

    def _close(self) -> None:
        """In a thread of its own, where a cancellation of the waiter does not cut it off."""
        self._readers.shutdown()
        self._writer.shutdown()
        self._read_engine.dispose()
        self._write_engine.dispose()


def migrate(url: str, script_location: Path, *, version_table: str = "alembic_version") -> None:
    """Bring the schema to the newest revision in `script_location`, in one transaction. Blocks: call in a thread.

    The folder's `env.py` finds the open connection in `context.config.attributes["connection"]`, and the table's name
    in `attributes["version_table"]`. Several processes may call at once: one migrates, the others wait for it.
    Raises: SetupError (store.schema_newer: nothing was changed), and as `Store` does.
    """
    dialect = dialect_for(url)
    dialect.prepare()
    engine = dialect.engine(pool_size=1, writable=True)
    try:
        with engine.begin() as connection:
            upgrade(connection, script_location, version_table, database=dialect.database)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise dialect.explain(error) or error from error
    finally:
        engine.dispose()


def upgrade(connection: sa.Connection, script_location: Path, version_table: str, *, database: str) -> None:
    """The part of `migrate` inside the transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection, "version_table": version_table})
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    for revision in context.get_current_heads():
        if revision not in known:
            raise SetupError(SCHEMA_NEWER, database=database, revision=revision)
    command.upgrade(config, "head")
