"""What only SQLite does: its file, its locks, its pages."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from faos_core.errors import IntegrityError, SetupError, UnavailableError
from faos_core.migrate import migrate
from faos_core.store import Store, Work, dialect_for
from faos_core.store_errors import DISK_FULL, URL_UNSUPPORTED
from faos_core.store_sqlite import set_pragmas

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


def add(text: str | None) -> Work[None]:
    def work(connection: sa.Connection) -> None:
        connection.execute(notes.insert().values(text=text))

    return work


def texts(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(notes.c.text).order_by(notes.c.id)).scalars())


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
    assert results[1].code is DISK_FULL
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

    assert caught.value.code is URL_UNSUPPORTED
    assert "secret" not in caught.value.what


async def test_purge_removes_deleted_bytes_from_all_files(store: Store, database: Path) -> None:
    """Erasure is worth nothing when the WAL still holds the page as it was."""
    await store.write(add("canary-9242"))
    assert any(b"canary-9242" in path.read_bytes() for path in database.parent.iterdir())

    await store.write(lambda connection: connection.execute(notes.delete()).rowcount)
    await store.purge()

    assert not any(b"canary-9242" in path.read_bytes() for path in database.parent.iterdir())


def test_many_first_starts_at_once_all_open_the_file(tmp_path: Path) -> None:
    """Switching a new file to WAL fails at once when another does the same; `make up` and a command may both start."""
    failures: list[sqlite3.Error] = []

    def start(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait()
        connection = sqlite3.connect(path)
        try:
            set_pragmas(connection, None)
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
    set_pragmas(holder, None)
    holder.execute("CREATE TABLE t(x)")
    holder.execute("PRAGMA journal_mode=DELETE")  # locks the database file itself, not the WAL's index
    holder.execute("BEGIN IMMEDIATE")

    dialect_for(url_of(database)).prepare()

    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    other = subprocess.run([sys.executable, "-c", code, str(database)], check=False, capture_output=True)
    assert b"database is locked" in other.stderr
    holder.close()


def test_other_modules_of_the_core_do_not_import_sqlalchemy() -> None:
    """`faos --help` pays 0.4 s for it otherwise."""
    code = (
        "import sys, pkgutil, importlib, faos_core\n"
        "[importlib.import_module(f'faos_core.{m.name}') for m in pkgutil.iter_modules(faos_core.__path__)"
        " if not m.name.startswith(('store', 'migrate'))]\n"
        "sys.exit('sqlalchemy' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_the_file_of_a_migration_is_the_owners_alone(tmp_path: Path) -> None:
    """Migrating comes first, so it is what makes the file."""
    scripts = tmp_path / "scripts"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text("")

    migrate(url_of(tmp_path / "test.db"), scripts)

    assert (tmp_path / "test.db").stat().st_mode & 0o777 == 0o600
