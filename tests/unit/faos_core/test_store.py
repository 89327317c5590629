import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from faos_core import store as store_module
from faos_core.errors import IntegrityError, InternalError, SetupError, UnavailableError
from faos_core.store import Store, migrate

metadata = sa.MetaData()
notes = sa.Table(
    "notes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False, unique=True),
)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    async with Store(url_of(database)) as store:
        await store.write(metadata.create_all)
        yield store


@pytest.fixture
def commits() -> Iterator[list[sa.Connection]]:
    """Every commit of any engine while the test runs."""
    seen: list[sa.Connection] = []

    def see(connection: sa.Connection) -> None:
        seen.append(connection)

    sa.event.listen(sa.Engine, "commit", see)
    yield seen
    sa.event.remove(sa.Engine, "commit", see)


def add(text: str | None) -> store_module.Work[None]:
    def work(connection: sa.Connection) -> None:
        connection.execute(notes.insert().values(text=text))

    return work


def texts(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(notes.c.text).order_by(notes.c.id)).scalars())


class Gate:
    """Work that holds its thread until the test lets it go."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def hold(self, _connection: sa.Connection) -> None:
        self._entered.set()
        assert self._open.wait(10)

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 10)

    def open(self) -> None:
        self._open.set()


async def test_write_is_readable_and_outlives_the_store(store: Store, database: Path) -> None:
    """What was acknowledged must be there for every later reader, in this process and the next."""
    assert await store.write(lambda connection: add("kept")(connection) or 7) == 7

    assert await store.read(texts) == ["kept"]
    with sqlite3.connect(database) as other:
        assert other.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    other.close()


async def test_writes_that_wait_together_commit_together(store: Store, commits: list[sa.Connection]) -> None:
    """One fsync for many runs is what lets ten thousand of them share a disk."""
    await asyncio.gather(*(store.write(add(f"note {n}")) for n in range(100)))

    assert len(await store.read(texts)) == 100
    assert len(commits) <= 2


async def test_a_failing_write_undoes_itself_only(store: Store) -> None:
    """Neighbours in a batch belong to other runs, and must not pay for this one."""

    def half(connection: sa.Connection) -> None:
        add("half")(connection)
        raise ValueError("mine")

    results = await asyncio.gather(
        store.write(add("before")), store.write(half), store.write(add("after")), return_exceptions=True
    )

    assert results[0] is None
    assert results[2] is None
    assert isinstance(results[1], ValueError)
    assert await store.read(texts) == ["before", "after"]


async def test_a_broken_constraint_is_the_callers_own(store: Store) -> None:
    """Idempotency keys are unique columns: the caller must see the clash itself, not "the database is down"."""
    await store.write(add("same"))

    with pytest.raises(sa.exc.IntegrityError):
        await store.write(add("same"))


async def test_errors_do_not_quote_values(store: Store) -> None:
    """Exception texts reach logs; parameters are customer data."""
    await store.write(add("canary-7351"))

    with pytest.raises(sa.exc.IntegrityError) as caught:
        await store.write(add("canary-7351"))

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("raised", [StopIteration, GeneratorExit, asyncio.CancelledError, KeyboardInterrupt])
async def test_no_exception_leaves_a_waiter_behind(store: Store, raised: type[BaseException]) -> None:
    """Some exceptions cannot travel through a future; a write must end all the same, and the writer live on."""

    def work(_connection: sa.Connection) -> None:
        raise raised

    async def attempt() -> str:
        try:
            await store.write(work)
        except (raised, RuntimeError):  # a coroutine turns StopIteration into RuntimeError
            return "raised"
        return "returned"

    assert await asyncio.wait_for(attempt(), 10) == "raised"
    await store.write(add("alive"))


async def test_cancelling_a_waiting_write_drops_it_alone(store: Store) -> None:
    """A client that goes away must neither write later nor take its neighbours along."""
    gate = Gate()
    holding = asyncio.create_task(store.write(gate.hold))
    await gate.entered()
    tasks = [asyncio.create_task(store.write(add(text))) for text in ("first", "cancelled", "last")]
    await asyncio.sleep(0)

    tasks[1].cancel()
    gate.open()
    await asyncio.gather(holding, *tasks, return_exceptions=True)

    assert tasks[1].cancelled()
    assert await store.read(texts) == ["first", "last"]


async def test_cancelling_a_write_in_progress_leaves_it_whole(store: Store) -> None:
    """Once begun, a write is all or nothing whoever still listens."""
    gate = Gate()

    def work(connection: sa.Connection) -> None:
        add("one")(connection)
        gate.hold(connection)
        add("two")(connection)

    task = asyncio.create_task(store.write(work))
    neighbour = asyncio.create_task(store.write(add("neighbour")))
    await gate.entered()
    task.cancel()
    gate.open()
    await neighbour

    assert await store.read(texts) == ["one", "two", "neighbour"]


async def test_more_writes_than_places_wait_and_are_all_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded by waiting, never by losing."""
    monkeypatch.setattr(store, "_write_slots", asyncio.Semaphore(3))
    monkeypatch.setattr(store_module, "BATCH_WRITES", 2)

    await asyncio.gather(*(store.write(add(f"note {n}")) for n in range(50)))

    assert len(await store.read(texts)) == 50


async def test_a_read_sees_one_snapshot(store: Store) -> None:
    """A timeline read in two statements must not show half of a step."""
    gate = Gate()

    def twice(connection: sa.Connection) -> tuple[list[str], list[str]]:
        first = texts(connection)
        gate.hold(connection)
        return first, texts(connection)

    reading = asyncio.create_task(store.read(twice))
    await gate.entered()
    await store.write(add("meanwhile"))
    gate.open()

    assert await reading == ([], [])
    assert await store.read(texts) == ["meanwhile"]


async def test_a_read_cannot_write(store: Store) -> None:
    """Only the writer is durable and ordered; a write that slipped into a reader would be neither."""
    with pytest.raises(SetupError):
        await store.read(add("slipped"))

    assert await store.read(texts) == []


async def test_leaving_finishes_what_was_accepted(database: Path) -> None:
    """Stopping the process must not lose writes that someone still waits for."""
    async with Store(url_of(database)) as store:
        await store.write(metadata.create_all)
        writes = [asyncio.create_task(store.write(add(f"note {n}"))) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    async with Store(url_of(database)) as store:
        assert len(await store.read(texts)) == 20


async def test_a_closed_store_refuses_work(database: Path) -> None:
    """A write after the end must fail at once, not hang."""
    store = Store(url_of(database))
    with pytest.raises(UnavailableError, match=r"store\.closed"):
        await store.write(texts)
    async with store:
        pass
    with pytest.raises(UnavailableError, match=r"store\.closed"):
        await store.read(texts)


async def test_every_connection_is_durable_and_clean(store: Store) -> None:
    """These settings are the promise: fsync at commit, nothing temporary or deleted left on disk."""

    def settings(connection: sa.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "temp_store", "foreign_keys", "secure_delete")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

    expected = {"journal_mode": "wal", "synchronous": 2, "temp_store": 2, "foreign_keys": 1, "secure_delete": 1}
    assert await store.write(settings) == expected
    assert await store.read(settings) == expected


async def test_files_are_the_owners_alone(store: Store, database: Path) -> None:
    """Other users of the machine have no business in the database, its WAL included."""
    await store.write(add("private"))

    modes = {path.name: path.stat().st_mode & 0o777 for path in database.parent.iterdir()}
    assert modes == {"test.db": 0o600, "test.db-wal": 0o600, "test.db-shm": 0o600}


async def test_a_full_disk_says_so_to_every_writer_of_the_batch(store: Store) -> None:
    """SQLite gives up the whole transaction then; nobody may believe that his part was written."""
    page_count = await store.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    await store.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={page_count + 4}").scalar())

    results = await asyncio.gather(
        store.write(add("small")), store.write(add("x" * 1_000_000)), store.write(add("later")), return_exceptions=True
    )

    kept = await store.read(texts)
    assert isinstance(results[1], SetupError)
    assert results[1].code is store_module.DISK_FULL
    for text, result in (("small", results[0]), ("later", results[2])):
        assert (text in kept) == (result is None)
    await store.write(add("small enough again"))


async def test_a_held_database_is_unavailable(store: Store, database: Path) -> None:
    """Another process that holds the file is a reason to try again, not to alarm anyone."""
    await store.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=10").scalar())
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(UnavailableError, match=r"store\.unavailable"):
        await store.write(add("held"))
    other.execute("ROLLBACK")
    other.close()

    await store.write(add("free"))
    assert await store.read(texts) == ["free"]


async def test_a_damaged_file_is_refused(database: Path) -> None:
    """Garbage must stop the start with a person's next step, never be overwritten."""
    database.write_bytes(b"not a database, and more than one header long " * 100)

    with pytest.raises(IntegrityError, match=r"store\.corrupt") as caught:
        async with Store(url_of(database)):
            pass

    assert str(database) in caught.value.what
    assert database.read_bytes().startswith(b"not a database")


async def test_a_folder_that_is_not_there_is_a_setup_error(tmp_path: Path) -> None:
    """A mistyped data folder must not read as a broken disk deep in a stack trace."""
    with pytest.raises(SetupError, match=r"store\.disk_failed"):
        async with Store(url_of(tmp_path / "missing" / "test.db")):
            pass


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/db"])
def test_an_engine_that_is_not_supported_is_refused(url: str) -> None:
    """Memory would lose data silently; a refusal must not print a password either."""
    with pytest.raises(SetupError) as caught:
        Store(url)

    assert caught.value.code is store_module.URL_UNSUPPORTED
    assert "secret" not in caught.value.what


async def test_a_write_that_commits_is_a_defect(store: Store) -> None:
    """It would break atomicity of everyone in the batch, so it must never go unnoticed."""

    def work(connection: sa.Connection) -> None:
        add("early")(connection)
        connection.commit()

    with pytest.raises(InternalError, match=r"store\.transaction_ended"):
        await store.write(work)
    await store.write(add("alive"))


async def test_purge_removes_deleted_bytes_from_all_files(store: Store, database: Path) -> None:
    """Erasure is worth nothing when the WAL still holds the page as it was."""
    await store.write(add("canary-9242"))
    assert any(b"canary-9242" in path.read_bytes() for path in database.parent.iterdir())

    await store.write(lambda connection: connection.execute(notes.delete()).rowcount)
    await store.purge()

    assert not any(b"canary-9242" in path.read_bytes() for path in database.parent.iterdir())


WRITER = """
import asyncio, sys
import sqlalchemy as sa
from faos_core.store import Store

INSERT = sa.text("INSERT INTO notes(text) VALUES (:text)")

async def write_for_ever(store, writer):
    for n in range(10**9):
        text = f"{writer}-{n}"
        await store.write(lambda c: c.execute(INSERT, {"text": text}).rowcount)
        print(text, flush=True)

async def main():
    async with Store(sys.argv[1]) as store:
        await store.write(lambda c: c.execute(sa.text("CREATE TABLE notes(text)")) and None)
        await asyncio.gather(*(write_for_ever(store, writer) for writer in range(10)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged(database: Path) -> None:
    """Nothing acknowledged is lost: promise 5."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, url_of(database)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    acknowledged = {process.stdout.readline().strip() for _ in range(300)}
    process.send_signal(signal.SIGKILL)
    acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    process.wait()
    process.stdout.close()

    async with Store(url_of(database)) as store:
        kept = await store.read(lambda connection: set(connection.exec_driver_sql("SELECT text FROM notes").scalars()))

    assert len(acknowledged) >= 300
    assert acknowledged <= kept


def test_many_first_starts_at_once_all_open_the_file(tmp_path: Path) -> None:
    """Switching a new file to WAL fails at once when another does the same; `make up` and a command may both start."""
    failures: list[sqlite3.Error] = []

    def start(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait()
        connection = sqlite3.connect(path)
        try:
            store_module.set_pragmas(connection, None)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            failures.append(error)
        connection.close()

    for n in range(40):
        barrier = threading.Barrier(6)
        threads = [threading.Thread(target=start, args=(tmp_path / f"{n}.db", barrier)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []


def test_opening_again_keeps_the_locks_of_this_process(database: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any descriptor of it: two writers would follow."""
    holder = sqlite3.connect(database, isolation_level=None)
    store_module.set_pragmas(holder, None)
    holder.execute("CREATE TABLE t(x)")
    holder.execute("PRAGMA journal_mode=DELETE")  # locks the database file itself, not the WAL's index
    holder.execute("BEGIN IMMEDIATE")

    store_module.dialect_for(url_of(database)).prepare()

    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    other = subprocess.run([sys.executable, "-c", code, str(database)], check=False, capture_output=True)
    assert b"database is locked" in other.stderr
    holder.close()


ENVIRONMENT = """
from alembic import context
attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
with context.begin_transaction():
    context.run_migrations()
"""
REVISION = """
from alembic import op
import sqlalchemy as sa
revision = "{revision}"
down_revision = {down}
def upgrade():
    op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True))
    {more}
"""


def migrations(folder: Path, *, more: str = "", count: int = 1) -> Path:
    """A script folder of `count` revisions; the last one also does `more`."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENVIRONMENT)
    for n in range(1, count + 1):
        down = repr(f"{n - 1:04}") if n > 1 else "None"
        script = REVISION.format(revision=f"{n:04}", down=down, table=f"t{n}", more=more if n == count else "")
        (folder / "versions" / f"{n:04}.py").write_text(script)
    return folder


def tables(database: Path) -> set[str]:
    connection = sqlite3.connect(database)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return names


def test_migrate_brings_the_schema_to_head_and_is_repeatable(database: Path, tmp_path: Path) -> None:
    """Every start migrates; the second must find nothing to do."""
    scripts = migrations(tmp_path / "scripts %s", count=2)

    for _ in range(2):
        migrate(url_of(database), scripts, version_table="plane_schema")

    assert tables(database) == {"t1", "t2", "plane_schema"}
    assert database.stat().st_mode & 0o777 == 0o600


def test_migrate_refuses_a_newer_schema_untouched(database: Path, tmp_path: Path) -> None:
    """After a downgrade, old code must not write into a schema that it does not know."""
    migrate(url_of(database), migrations(tmp_path / "newer", count=2))

    with pytest.raises(SetupError, match=r"store\.schema_newer") as caught:
        migrate(url_of(database), migrations(tmp_path / "older", count=1))

    assert "0002" in caught.value.what


def test_migrate_that_fails_halfway_changes_nothing(database: Path, tmp_path: Path) -> None:
    """A half-migrated schema could neither go on nor back."""
    scripts = migrations(tmp_path / "scripts", count=2, more='op.execute("no such statement")')

    with pytest.raises(sa.exc.OperationalError):
        migrate(url_of(database), scripts)

    assert tables(database) == set()


async def test_migrate_twice_at_once_is_safe(database: Path, tmp_path: Path) -> None:
    """Two commands started together must not trip over one another."""
    scripts = migrations(tmp_path / "scripts", count=2)
    code = "import sys, pathlib; from faos_core.store import migrate; migrate(sys.argv[1], pathlib.Path(sys.argv[2]))"
    arguments = [sys.executable, "-c", code, url_of(database), str(scripts)]

    processes = [await asyncio.create_subprocess_exec(*arguments) for _ in range(3)]

    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert tables(database) == {"t1", "t2", "alembic_version"}


def test_other_modules_of_the_core_do_not_import_sqlalchemy() -> None:
    """`faos --help` pays 0.4 s for it otherwise."""
    code = (
        "import sys, pkgutil, importlib, faos_core\n"
        "[importlib.import_module(f'faos_core.{m.name}') for m in pkgutil.iter_modules(faos_core.__path__)"
        " if m.name != 'store']\n"
        "sys.exit('sqlalchemy' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
