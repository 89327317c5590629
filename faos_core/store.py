"""The durable store of a plane: SQLAlchemy Core on threads that the store owns, with group commit.

The engine is synchronous: one writer thread, few reader threads, an asyncio surface. What only one database engine
does stands behind `faos_core.store_dialect.Dialect`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from faos_core.errors import FaosError, InternalError, SetupError, UnavailableError
from faos_core.store_dialect import KEEP, MARK, UNDO, Dialect, Failure
from faos_core.store_errors import CLOSED, TRANSACTION_ENDED, UNCONFIRMED, URL_MALFORMED, URL_UNSUPPORTED
from faos_core.store_meter import StoreMeter
from faos_core.store_sqlite import SQLiteDialect
from faos_core.worker_thread import WorkerThread

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # an item of work that is done together
Work = Callable[[sa.Connection], T]
JointWork = Callable[[sa.Connection, Sequence[I]], Sequence[BaseException | None]]

WAITING_WRITES = 10_000
WAITING_READS = 1_000
BATCH_WRITES = 1_000
CLOSE_TIMEOUT_S = 30.0
CONFLICT_PAUSES_S = (0.0, 0.02, 0.1, 0.5)  # before each attempt at a write alone; jittered
CONFIRM_S = 5.0  # how long to ask what became of a transaction whose COMMIT was not answered
CONFIRM_PAUSE_S = 0.1


def dialect_for(url: str) -> Dialect:
    """Raises SetupError for a URL that cannot be read, and for an engine that is not supported."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise SetupError(URL_MALFORMED) from None  # its text would quote the URL
    if backend == "postgresql":
        from faos_core.store_postgres import PostgresDialect  # its driver takes time to import

        return PostgresDialect(parsed)
    if backend != "sqlite":
        raise SetupError(URL_UNSUPPORTED, database=parsed.set(query={}).render_as_string())
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
    work: Work[Any] | JointWork[Any]
    serial: bool
    outcome: asyncio.Future[Outcome[Any]]
    items: Sequence[Any] = ()  # one, of joint work


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands or falls as one within a batch: a write, or those that are done together."""

    work: Work[Sequence[Outcome[Any]]]
    places: Sequence[int]  # in the batch


class BatchLostError(Exception):
    """The database gave up the transaction of a whole batch; the cause says why."""


class UnconfirmedError(Exception):
    """Whether a transaction was committed cannot be found out; the cause says why."""


class Store:
    """One database, one writer, group commit. Belongs to one event loop.

    Other processes may have a store on the same PostgreSQL database: writes are safe from one another (see
    `faos_core.store_postgres`). A database that goes away is unavailable until it is back; nobody need start again.

    Order: `async with store`, then any number of concurrent `write` and `read`; leaving waits for the writes that
    were accepted, then closes. Afterwards, and before, both raise UnavailableError (store.closed).
    """

    def __init__(self, url: str, *, readers: int = 2, sole: bool = False) -> None:
        """url: of SQLAlchemy, e.g. "sqlite:////var/lib/faos/node.db" or "postgresql://faos@db.example.com/faos".

        readers: threads that read at the same time, each with a connection; the writer has one more.
        sole: no other process may open the PostgreSQL database so at the same time (an SQLite file: see who owns the
            folder).
        Raises: SetupError for an engine that is not supported.
        """
        self._dialect = dialect_for(url)
        self._reader_count = readers
        self._sole = sole
        self._open = False
        self._committing = False
        self._waiting: list[WaitingWrite] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._write_slots = asyncio.Semaphore(WAITING_WRITES)
        self._read_slots = asyncio.Semaphore(WAITING_READS)
        self.meter = StoreMeter()

    async def __aenter__(self) -> "Store":
        """Open. Raises SetupError, UnavailableError or IntegrityError as the registry's store codes say."""
        self._loop = asyncio.get_running_loop()
        self._writer = WorkerThread("store-writer")
        self._readers = ThreadPoolExecutor(self._reader_count, thread_name_prefix="store-reader")
        self._write_engine = self._dialect.engine(pool_size=1, writable=True, sole=self._sole)
        self._transactions = self._dialect.transactions(self._write_engine)
        self._read_engine = self._dialect.engine(pool_size=self._reader_count, writable=False)
        try:
            (await self._ask_writer(self._connect)).unwrap()
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

    async def write(self, fn: Work[T], *, serial: bool = True) -> T:
        """Run `fn` in the writer thread and return what it returned, once it is durable.

        fn: gets a connection inside a transaction; it must not commit, and must not block on anything else. What it
            raises undoes its own changes and is raised here; its neighbours in the batch are not touched. It may run
            again, with nothing of its first run left in the database, where another process or a lost connection got
            in its way: what it does besides must bear that.
        serial: no other serial write, of whatever process, happens meanwhile: fn may read, decide and write. False: for
            work that need not wait for other processes, because each of its statements is right whatever they write.
        At 10,000 waiting writes, further ones wait for a place. Cancelling the waiter drops a write that has not
        begun; one that has begun is written, or not, as a whole.
        Raises: SetupError (store.disk_full and others), UnavailableError (store.unavailable, store.closed),
            IntegrityError (store.corrupt): nothing was written. UnavailableError (store.unconfirmed): the answer to
            COMMIT was lost with the server, and it did not come back in 5 s; written whole, or not at all.
        """
        outcome: Outcome[T] = await self._written(fn, serial)
        return outcome.unwrap()

    async def write_together(self, fn: JointWork[I], item: I, *, serial: bool = True) -> None:
        """As `write`, but those of the same `fn` that wait together are one call of it, with all of their items: a
        statement for many rows costs a tenth of as many statements.

        fn: a plain function, the same object each time; gets the items in the order of the calls, and returns for each
            None, or the error to raise where it was asked for, having written nothing of that item. What it raises
            undoes and fails all of them.
        """
        outcome = await self._written(fn, serial, item)
        outcome.unwrap()

    async def _written(self, work: Work[Any] | JointWork[Any], serial: bool, *items: Any) -> Outcome[Any]:
        self._check_open()
        await self._write_slots.acquire()
        self._check_open()
        write = WaitingWrite(work, serial, self._loop.create_future(), items)
        self._waiting.append(write)
        self._idle.clear()
        if len(self._waiting) == 1:
            self._loop.call_soon(self._begin_batch)
        return await write.outcome

    async def read(self, fn: Work[T]) -> T:
        """Run `fn` in a reader thread on one consistent snapshot, and return what it returned.

        fn: may only read; it may run again where the connection was lost. Raises what `write` raises, and what `fn`
        raises. Cancel-safe.
        """
        self._check_open()
        async with self._read_slots:
            outcome = await self._loop.run_in_executor(self._readers, self._read_snapshot, fn)
        return outcome.unwrap()

    async def hear(self, woken: Callable[[], None]) -> None:
        """Call `woken` whenever a process, this one among them, has committed what called `wake_others`; and once when
        it begins to hear, because nobody knows what happened before. A hint: look into the database for what it is.

        Returns at once where the engine cannot tell: look from time to time. Otherwise runs until it is cancelled.
        Raises UnavailableError, SetupError when the connection is lost or cannot be had: look, and hear again.
        """
        self._check_open()
        await self._dialect.hear(woken)

    async def purge(self, *, rewrite: Sequence[sa.Table] = ()) -> None:
        """Remove what was deleted before this call: of SQLite from every file of the database.

        PostgreSQL can no longer select it, and rewrites the pages of the tables in `rewrite` (locked meanwhile: small
        ones); its log (WAL), archives and backups keep older pages until they are recycled.
        Raises UnavailableError (store.unavailable) when a long read of the old state prevents it: call again.
        """
        self._check_open()
        (await self._ask_writer(lambda: self._purge(rewrite))).unwrap()

    async def _ask_writer(self, fn: Callable[[], Outcome[None]]) -> Outcome[None]:
        """fn: never raises."""
        answer: asyncio.Future[Outcome[None]] = self._loop.create_future()
        self._writer.submit(lambda: self._tell(settle, answer, fn()))
        return await answer

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """In the writer thread. Nobody waits any more where the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return

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
        self._writer.submit(lambda: self._commit_and_tell(batch))

    def _take_batch(self) -> list[WaitingWrite]:
        taken, self._waiting = self._waiting[:BATCH_WRITES], self._waiting[BATCH_WRITES:]
        for _ in taken:
            self._write_slots.release()
        batch = [write for write in taken if not write.outcome.cancelled()]
        return batch if batch or not self._waiting else self._take_batch()

    def _end_batch(self, batch: Sequence[WaitingWrite], outcomes: Sequence[Outcome[Any]]) -> None:
        for write, outcome in zip(batch, outcomes, strict=True):
            settle(write.outcome, outcome)
        self._committing = False
        self._loop.call_soon(self._begin_batch)

    def _commit_and_tell(self, batch: Sequence[WaitingWrite]) -> None:
        self._tell(self._end_batch, batch, self._commit(batch))

    def _commit(self, batch: Sequence[WaitingWrite]) -> list[Outcome[Any]]:
        """In the writer thread: one transaction around all, one outcome each. Never raises.

        After a lost connection all are tried once more; after a conflict each alone, where no neighbour's locks are
        in the way.
        """
        began_s = time.perf_counter()
        outcomes, cause = self._attempt(batch)
        self.meter.committed(len(batch), time.perf_counter() - began_s)
        if cause and self._dialect.failure(cause) is Failure.CONNECTION_LOST:
            outcomes, cause = self._attempt(batch)
        if cause and self._dialect.failure(cause) is Failure.CONFLICT:
            return [self._commit_alone(write) for write in batch]
        return [Outcome(error=self._lost(cause)) for _ in batch] if cause else outcomes

    def _commit_alone(self, write: WaitingWrite) -> Outcome[Any]:
        """A bounded number of attempts, with pauses between them."""
        cause: BaseException | None = None
        for pause_s in CONFLICT_PAUSES_S:
            time.sleep(pause_s * random.random())  # noqa: S311  # not a secret
            outcomes, cause = self._attempt([write])
            if cause is None:
                return outcomes[0]
            if self._dialect.failure(cause) is not Failure.CONFLICT:
                break
        return Outcome(error=self._lost(cause)) if cause else Outcome()

    def _attempt(self, batch: Sequence[WaitingWrite]) -> tuple[list[Outcome[Any]], BaseException | None]:
        """The outcomes, or why nothing was written."""
        try:
            return self._transaction(batch), None
        except BatchLostError as lost:
            return [], lost.__cause__ or lost
        except BaseException as error:  # noqa: BLE001  (a supervisor: every waiter gets an answer)
            return [], error

    def _transaction(self, batch: Sequence[WaitingWrite]) -> list[Outcome[Any]]:
        """Returns when committed. Raises when nothing was written, or UnconfirmedError."""
        done: list[Outcome[Any]] = []
        transaction_id = ""
        try:
            connection = self._transactions.begin(serial=any(write.serial for write in batch))
            transaction_id = self._dialect.transaction_id(connection)
            done = self._work(batch, connection)
            self._transactions.commit()
        except BaseException as error:
            self._transactions.release()
            is_lost = isinstance(error, SQLAlchemyError) and self._dialect.failure(error) is Failure.CONNECTION_LOST
            if not (done and is_lost and transaction_id and self._was_committed(transaction_id)):
                raise
        return done

    def _work(self, batch: Sequence[WaitingWrite], connection: sa.Connection) -> list[Outcome[Any]]:
        """Each piece between savepoints; a single one needs none. Raises BatchLostError."""
        if len(batch) == 1 and not batch[0].items:
            work: Any = batch[0].work
            return [self._work_alone(work, connection)]
        pieces = pieces_of(batch)
        if len(pieces) == 1:
            return list(each_of(pieces[0], self._work_alone(pieces[0].work, connection)))
        outcomes: dict[int, Outcome[Any]] = {}
        connection.exec_driver_sql(MARK)  # begin_nested compiles a new name each time: twice the cost
        for piece in pieces:
            if outcomes:
                self._dialect.mark_next(connection)
            done = self._work_between_marks(piece.work, connection)
            outcomes.update(zip(piece.places, each_of(piece, done), strict=True))
        connection.exec_driver_sql(KEEP)
        return [outcomes[place] for place in range(len(batch))]

    def _work_alone(self, work: Work[T], connection: sa.Connection) -> Outcome[T]:
        outcome = self._outcome(work, connection)
        if not self._transactions.is_open():
            raise BatchLostError from outcome.error
        if outcome.error is not None:
            self._transactions.rollback()
        return outcome

    def _work_between_marks(self, work: Work[T], connection: sa.Connection) -> Outcome[T]:
        """Raises BatchLostError when the savepoint went with the transaction."""
        outcome = self._outcome(work, connection)
        if outcome.error is not None:
            try:
                connection.exec_driver_sql(UNDO)
            except SQLAlchemyError:
                raise BatchLostError from outcome.error
        return outcome

    def _outcome(self, work: Work[T], connection: sa.Connection) -> Outcome[T]:
        """Raises BatchLostError for a failure that the batch's transaction cannot outlive."""
        try:
            return Outcome(work(connection))
        except BaseException as error:  # a supervisor: whatever it is, it is raised at the waiter
            if self._dialect.failure(error) is not Failure.FINAL:
                raise BatchLostError from error
            return Outcome(error=self._explained(error))

    def _was_committed(self, transaction_id: str) -> bool:
        """The connection was lost while COMMIT was under way. Raises UnconfirmedError."""
        end_s = time.monotonic() + CONFIRM_S
        while True:
            cause: SQLAlchemyError | None = None
            try:
                committed = self._dialect.committed(self._write_engine, transaction_id)
                if committed is not None:
                    return committed
            except SQLAlchemyError as error:
                cause = error
            if time.monotonic() > end_s:
                raise UnconfirmedError from cause
            time.sleep(CONFIRM_PAUSE_S)

    def _read_snapshot(self, work: Work[T]) -> Outcome[T]:
        """In a reader thread. Never raises. After a lost connection, once more."""
        outcome = self._snapshot(work)
        if outcome.error and self._dialect.failure(outcome.error) is Failure.CONNECTION_LOST:
            outcome = self._snapshot(work)
        return Outcome(error=self._explained(outcome.error)) if outcome.error else outcome

    def _snapshot(self, work: Work[T]) -> Outcome[T]:
        try:
            with self._read_engine.connect() as connection:
                return Outcome(work(connection))
        except BaseException as error:  # noqa: BLE001  (a supervisor: whatever it is, it is raised at the waiter)
            return Outcome(error=error)

    def _connect(self) -> Outcome[None]:
        """In the writer thread: the first connection, so that a database that cannot be used is known at once."""
        try:
            self._dialect.prepare()
            self._transactions.begin(serial=False)  # whoever migrates is not waited for
            self._transactions.commit()
            return Outcome(None)
        except Exception as error:  # noqa: BLE001  (a supervisor: it is raised where the store is opened)
            return Outcome(error=self._explained(error))

    def _purge(self, rewrite: Sequence[sa.Table]) -> Outcome[None]:
        """In the writer thread, between batches."""
        try:
            self._transactions.release()
            if self._dialect.purge(self._write_engine, rewrite):
                return Outcome(None)
            return Outcome(error=self._dialect.unavailable())
        except Exception as error:  # noqa: BLE001  (a supervisor: it is raised where the purge was asked for)
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
        ours = self._unconfirmed() if isinstance(cause, UnconfirmedError) else self._dialect.explain(cause)
        ours = ours or InternalError(TRANSACTION_ENDED, database=self._dialect.database)
        ours.__cause__ = cause
        return ours

    def _unconfirmed(self) -> UnavailableError:
        passing = self._dialect.unavailable()
        return UnavailableError(UNCONFIRMED, **passing.fields)

    def _close(self) -> None:
        """In a thread of its own, where a cancellation of the waiter does not cut it off."""
        self._readers.shutdown()
        self._writer.shutdown()
        self._transactions.release()
        self._read_engine.dispose()
        self._write_engine.dispose()


def settle(waiting: "asyncio.Future[Outcome[Any]]", outcome: Outcome[Any]) -> None:
    if not waiting.cancelled():
        waiting.set_result(outcome)


def pieces_of(batch: Sequence[WaitingWrite]) -> list[Piece]:
    """In the order of their first writes."""
    places: dict[object, list[int]] = {}
    for place, write in enumerate(batch):
        places.setdefault(write.work if write.items else place, []).append(place)
    return [piece_of([batch[place] for place in group], group) for group in places.values()]


def piece_of(writes: Sequence[WaitingWrite], places: Sequence[int]) -> Piece:
    work: Any = writes[0].work
    if not writes[0].items:
        return Piece(lambda connection: [Outcome(work(connection))], places)
    items = [write.items[0] for write in writes]
    return Piece(lambda connection: [Outcome(error=error) for error in work(connection, items)], places)


def each_of(piece: Piece, outcome: Outcome[Sequence[Outcome[Any]]]) -> Sequence[Outcome[Any]]:
    """One for each write of a piece. What failed as a whole fails each with an error of its own, where it can."""
    if outcome.error is None:
        return outcome.unwrap()
    error = outcome.error
    if isinstance(error, FaosError) and len(piece.places) > 1:
        return [Outcome(error=again(error)) for _ in piece.places]
    return [Outcome(error=error) for _ in piece.places]


def again(error: FaosError) -> FaosError:
    """The same, to be raised elsewhere too."""
    copy = type(error)(error.code, **error.fields)
    copy.__cause__ = error
    return copy
