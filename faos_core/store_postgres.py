"""PostgreSQL through psycopg: for a database that several processes share, or that outgrew one machine.

Writers. Transactions of a store exclude each other over all processes by an advisory lock that each takes first of all:
it is what SQLite's write lock is. So work that reads and then writes (the next revision, the next audit record, a
token's one use) is right without further thought, and no two of them can deadlock: under that lock, READ COMMITTED
shows all that was committed before. Work whose statements are each right alone may leave the lock out
(`Store.write(serial=False)`); row locks order it, and unique constraints stand behind everything.

A process that stops in the middle of a transaction loses it after 30 s (idle_in_transaction_session_timeout), which is
sooner than others give up waiting for it.

Readers have one snapshot per read (REPEATABLE READ READ ONLY).
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from faos_core.errors import FaosError, IntegrityError, InvalidError, SetupError, UnavailableError
from faos_core.store_dialect import KEEP, MARK, SERIAL, WAKE_CHANNEL, Failure
from faos_core.store_errors import (
    CORRUPT,
    DATABASE_MISSING,
    DISK_FAILED,
    DISK_FULL,
    LOGIN_REFUSED,
    NOT_PERMITTED,
    READ_ONLY,
    SERVER_UNSUITABLE,
    TAKEN,
    TLS_FAILED,
    TOO_MANY_CONNECTIONS,
    UNAVAILABLE,
    URL_MALFORMED,
    URL_UNSUPPORTED,
    VALUE_REFUSED,
)

DRIVER = "postgresql+psycopg"
OLDEST_SERVER = 13  # pg_current_xact_id
WRITE_LOCK = 0x6661_6F73_7772_6974  # "faoswrit": held by a transaction that excludes others
OWNER_LOCK = 0x6661_6F73_6F77_6E72  # "faosownr": held by the connection of the one process that may use the database
OWNER_WAIT_MS = 5_000  # for a predecessor that is stopping
PURGE_S = 5.0
PURGE_PAUSE_S = 0.1
CONNECTIONS_NEEDED = 4  # of a store with two readers, and of one that migrates

# Each unless the server, the role, the database or the URL says otherwise. "0" is unlimited.
TIMEOUTS = {
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": "35s",  # longer: who stopped in the middle is thrown out before others give up
    "statement_timeout": "60s",
}
CONNECT_DEFAULTS: dict[str, str | int] = {
    "application_name": "faos",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

EXCLUDE_WRITERS = f"SELECT pg_advisory_xact_lock({WRITE_LOCK}), pg_current_xact_id()::text"
NAME_TRANSACTION = "SELECT NULL, pg_current_xact_id()::text"
SET_UP = """
SELECT set_config(wanted.name, wanted.value, false) FROM (VALUES {timeouts}) AS wanted(name, value)
 WHERE current_setting(wanted.name) = '0';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
LOOK_AT_SERVER = """
SELECT current_setting('server_version_num')::int / 10000, current_setting('fsync'),
       current_setting('full_page_writes'), current_setting('server_encoding'), pg_is_in_recovery()
"""

STATUS = "SELECT pg_xact_status(%s::xid8)"

Driver = psycopg.Connection[tuple[Any, ...]]


class PooledTransactions:
    """Each over a connection that the pool has looked at. Implements Transactions."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engines = {True: engine, False: engine.execution_options(**{SERIAL: False})}  # made once
        self._connection: sa.Connection | None = None
        self._transaction: sa.RootTransaction | None = None

    def begin(self, *, serial: bool) -> sa.Connection:
        self._connection = self._engines[serial].connect()
        self._transaction = self._connection.begin()
        return self._connection

    def is_open(self) -> bool:
        return self._transaction is not None and self._transaction.is_active

    def commit(self) -> None:
        if self._transaction is not None and self._transaction.is_active:
            self._transaction.commit()
        self.release()

    def rollback(self) -> None:
        if self._transaction is not None:
            self._transaction.rollback()

    def release(self) -> None:
        connection, self._connection, self._transaction = self._connection, None, None
        if connection is not None:
            connection.close()


class PostgresDialect:
    """One database on a server."""

    def __init__(self, url: URL) -> None:
        if url.drivername not in ("postgresql", DRIVER):
            raise SetupError(URL_UNSUPPORTED, database=without_secrets(url))
        self._url = url.set(drivername=DRIVER)
        self.database = without_secrets(url)

    def prepare(self) -> None:
        """The server has the database already."""

    def engine(self, *, pool_size: int, writable: bool, sole: bool = False) -> sa.Engine:
        defaults = {name: value for name, value in CONNECT_DEFAULTS.items() if name not in self._url.query}
        arguments = {**defaults, "client_encoding": "utf8"}
        engine = sa.create_engine(
            self._url, pool_size=pool_size, max_overflow=0, hide_parameters=True, connect_args=arguments
        )
        sa.event.listen(engine, "connect", self._preparing(writable=writable, sole=sole))
        sa.event.listen(engine, "handle_error", hide_values)
        if writable:
            sa.event.listen(engine, "begin", begin_writing)
        return engine

    def _preparing(self, *, writable: bool, sole: bool) -> Callable[[Driver, object], None]:
        def prepare_connection(driver: Driver, _record: object) -> None:
            try:
                set_up(driver, writable=writable)
                if writable:
                    self._check_server(driver)
                if sole:
                    self._take(driver)
                driver.commit()
            except BaseException:
                driver.close()  # the pool does not know it yet
                raise

        return prepare_connection

    def _check_server(self, driver: Driver) -> None:
        """Raises SetupError for a server on which what is acknowledged could be lost, or nothing written."""
        version, fsync, full_pages, encoding, standby = driver.execute(LOOK_AT_SERVER).fetchone() or ()
        if standby:
            raise SetupError(READ_ONLY, database=self.database)
        if version < OLDEST_SERVER:
            self._refuse(f"It is PostgreSQL {version}.", f"Use PostgreSQL {OLDEST_SERVER} or newer.")
        if (fsync, full_pages) != ("on", "on"):
            self._refuse("It does not write durably (fsync or full_page_writes is off).", "Turn both on.")
        if encoding != "UTF8":
            self._refuse(f"Its encoding is {encoding}.", "Make it anew: createdb --template=template0 --encoding=UTF8")

    def _refuse(self, reason: str, remedy: str) -> None:
        raise SetupError(SERVER_UNSUITABLE, database=self.database, reason=reason, remedy=remedy)

    def _take(self, driver: Driver) -> None:
        """Hold the database for as long as this connection lives. Raises SetupError (store.taken)."""
        try:
            driver.commit()
            driver.execute(f"SET LOCAL lock_timeout = {OWNER_WAIT_MS}")
            driver.execute(f"SELECT pg_advisory_lock({OWNER_LOCK})")
        except psycopg.errors.LockNotAvailable as error:
            raise SetupError(TAKEN, database=self.database) from error

    def transactions(self, engine: sa.Engine) -> PooledTransactions:
        return PooledTransactions(engine)

    def mark_next(self, connection: sa.Connection) -> None:
        """One round trip for both."""
        connection.exec_driver_sql(f"{KEEP}; {MARK}")

    def transaction_id(self, connection: sa.Connection) -> str:
        return str(connection.info["transaction_id"])

    def committed(self, engine: sa.Engine, transaction_id: str) -> bool | None:
        with engine.execution_options(isolation_level="AUTOCOMMIT", **{SERIAL: False}).connect() as connection:
            status = connection.exec_driver_sql(STATUS, (transaction_id,)).scalar_one()
        return None if status == "in progress" else status == "committed"

    def purge(self, engine: sa.Engine, rewrite: Sequence[sa.Table]) -> bool:
        """What was deleted can no longer be selected; of the tables in `rewrite` no page is left that held it.

        PostgreSQL's own log (WAL), its archive and its backups keep older pages until they are recycled.
        """
        with engine.execution_options(isolation_level="AUTOCOMMIT", **{SERIAL: False}).connect() as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            gone = all(rewritten(connection, table) for table in rewrite)
            connection.exec_driver_sql("VACUUM (SKIP_LOCKED)")
            connection.exec_driver_sql("RESET statement_timeout")
        return gone

    def failure(self, error: BaseException) -> Failure:
        origin = origin_of(error)
        if not isinstance(origin, psycopg.Error):
            return Failure.FINAL
        state = state_of(origin)
        if state in CONFLICTS:
            return Failure.CONFLICT
        lost = state.startswith(LOST) or (isinstance(error, DBAPIError) and error.connection_invalidated)
        return Failure.CONNECTION_LOST if lost else Failure.FINAL

    def explain(self, error: BaseException) -> FaosError | None:
        if isinstance(error, ArgumentError):
            return SetupError(URL_MALFORMED)
        origin = origin_of(error)
        if not isinstance(origin, psycopg.Error):
            return None
        if self.failure(error) is not Failure.FINAL:
            return self.unavailable()
        return self._refusal(origin, state_of(origin))

    def _refusal(self, origin: psycopg.Error, state: str) -> FaosError | None:
        if known := BY_STATE.get(state):
            kind, code = known
            return kind(code, database=self.database, needed=CONNECTIONS_NEEDED)
        if isinstance(origin, psycopg.DataError):
            return InvalidError(VALUE_REFUSED)
        if isinstance(origin, psycopg.ProgrammingError) and "connection option" in str(origin):
            return SetupError(URL_MALFORMED)
        return self.unavailable() if state in PASSING else None

    async def hear(self, woken: Callable[[], None]) -> None:
        """Over a connection of its own, whose keepalives find out about a server that is gone within half a minute."""
        connection: psycopg.AsyncConnection[Any] | None = None
        try:
            connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._connect_arguments())
            await connection.execute(f"LISTEN {WAKE_CHANNEL}".encode())
            woken()
            async for _ in connection.notifies():
                woken()
        except psycopg.Error as error:
            raise (self.explain(error) or self.unavailable()) from error
        finally:
            if connection:
                await connection.close()

    def _connect_arguments(self) -> dict[str, Any]:
        defaults = {name: value for name, value in CONNECT_DEFAULTS.items() if name not in self._url.query}
        _, of_url = self._url.get_dialect()().create_connect_args(self._url)
        return {**defaults, "client_encoding": "utf8", **of_url}

    def unavailable(self) -> UnavailableError:
        look = f"pg_isready --dbname='{self.database}'"
        return UnavailableError(UNAVAILABLE, database=self.database, look=look)


NO_CONNECTION = "08006"
TLS_FAILED_STATE = "FAOS1"  # of ours: TLS is over before a server says anything
BY_STATE: dict[str, tuple[type[FaosError], Any]] = {
    "53100": (SetupError, DISK_FULL),
    "53300": (SetupError, TOO_MANY_CONNECTIONS),
    "25006": (SetupError, READ_ONLY),
    "28000": (SetupError, LOGIN_REFUSED),
    "28P01": (SetupError, LOGIN_REFUSED),
    "3D000": (SetupError, DATABASE_MISSING),
    "42501": (SetupError, NOT_PERMITTED),
    "58030": (SetupError, DISK_FAILED),
    TLS_FAILED_STATE: (SetupError, TLS_FAILED),
    "XX001": (IntegrityError, CORRUPT),
    "XX002": (IntegrityError, CORRUPT),
}
CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock
# A lock that was not to be had, a statement or a transaction that took too long, out of memory.
PASSING = frozenset({"55P03", "57014", "53200"})
LOST = ("08", "57P", "25P03")  # the connection; the server stops, crashed or is not up yet; we stood still too long

# What a server says before a session is there reaches us as text alone: libpq keeps its SQLSTATE to itself.
STATES_BY_TEXT = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("pg_hba.conf", "28000"),
    ("authentication failed", "28000"),
    ("is not permitted to log in", "28000"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("remaining connection slots", "53300"),
    ("permission denied for database", "42501"),
    ('FATAL:  role "', "28000"),
    ('FATAL:  database "', "3D000"),
    ("certificate", TLS_FAILED_STATE),
    ("SSL", TLS_FAILED_STATE),
)


def origin_of(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def state_of(error: psycopg.Error) -> str:
    """The SQLSTATE; of an error about the connection itself, which has none, by what the server said in English."""
    if error.sqlstate is not None or not isinstance(error, psycopg.OperationalError):
        return error.sqlstate or ""
    text = str(error)
    return next((state for part, state in STATES_BY_TEXT if part in text), NO_CONNECTION)


def without_secrets(url: URL) -> str:
    """The URL as it may be shown: without password and options."""
    return URL.create(
        url.get_backend_name(), username=url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()


def set_up(driver: Driver, *, writable: bool) -> None:
    """Isolation, time-outs, and durability at commit."""
    driver.isolation_level = (
        psycopg.IsolationLevel.READ_COMMITTED if writable else psycopg.IsolationLevel.REPEATABLE_READ
    )
    driver.read_only = not writable
    timeouts = ", ".join(f"('{name}', '{value}')" for name, value in TIMEOUTS.items())
    driver.execute(SET_UP.format(timeouts=timeouts).encode())


def begin_writing(connection: sa.Connection) -> None:
    """After BEGIN, which the driver sends: the lock, and the transaction's id."""
    serial = connection.get_execution_options().get(SERIAL, True)
    row = connection.exec_driver_sql(EXCLUDE_WRITERS if serial else NAME_TRANSACTION).one()
    connection.info["transaction_id"] = row[1]


def rewritten(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether no deleted row went along: those that an older snapshot still sees do, and it is tried again for 5 s."""
    end_s = time.monotonic() + PURGE_S
    while kept_dead(connection, table):
        if time.monotonic() > end_s:
            return False
        time.sleep(PURGE_PAUSE_S)
    return True


def kept_dead(connection: sa.Connection, table: sa.Table) -> int:
    """How many deleted rows a rewrite of the table had to keep: the number that the server's notice begins with."""
    details: list[str] = []
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)

    def note(notice: psycopg.errors.Diagnostic) -> None:
        details.append(notice.message_detail or "")

    driver.add_notice_handler(note)
    try:
        connection.execute(sa.text(f'VACUUM (FULL, VERBOSE) "{table.name}"'))  # a name of ours
    finally:
        driver.remove_notice_handler(note)
    return sum(int(found[0]) for detail in details if (found := re.match(r"\d+", detail)))


def hide_values(context: sa.engine.ExceptionContext) -> None:
    """PostgreSQL quotes rows and values in what it says of an error; texts of exceptions reach logs."""
    origin, wrapped = context.original_exception, context.sqlalchemy_exception
    if not isinstance(origin, psycopg.Error) or origin.sqlstate is None:
        return
    text = f"SQLSTATE {origin.sqlstate}"
    if not isinstance(origin, psycopg.DataError):  # that one quotes the value in its first line too
        text += f": {origin.diag.message_primary}"
    origin.args = (text,)
    if wrapped is not None:
        wrapped.args = (f"({type(origin).__name__}) {text}",)
