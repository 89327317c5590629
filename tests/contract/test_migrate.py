"""Migrations, on each engine: whole or not at all, by one process at a time, never backwards."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
import sqlalchemy as sa

from faos_core.errors import SetupError
from faos_core.migrate import migrate
from faos_core.store import Store

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


def tables(database_url: str) -> set[str]:
    engine = sa.create_engine(database_url)
    names = set(sa.inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_migrate_brings_the_schema_to_head_and_is_repeatable(database_url: str, tmp_path: Path) -> None:
    """Every start migrates; the second must find nothing to do."""
    scripts = migrations(tmp_path / "scripts %s", count=2)

    for _ in range(2):
        migrate(database_url, scripts, version_table="plane_schema")

    assert tables(database_url) == {"t1", "t2", "plane_schema"}


def test_migrate_refuses_a_newer_schema_untouched(database_url: str, tmp_path: Path) -> None:
    """After a downgrade, old code must not write into a schema that it does not know."""
    migrate(database_url, migrations(tmp_path / "newer", count=2))

    with pytest.raises(SetupError, match=r"store\.schema_newer") as caught:
        migrate(database_url, migrations(tmp_path / "older", count=1))

    assert "0002" in caught.value.what


def test_migrate_that_fails_halfway_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """A half-migrated schema could neither go on nor back."""
    scripts = migrations(tmp_path / "scripts", count=2, more='op.execute("no such statement")')

    with pytest.raises(sa.exc.DBAPIError):
        migrate(database_url, scripts)

    assert tables(database_url) == set()


MIGRATE = """
import sys, pathlib
from faos_core import migrate, store
import alembic.command, alembic.config
print("ready", flush=True)
sys.stdin.readline()
migrate.migrate(sys.argv[1], pathlib.Path(sys.argv[2]))
"""
PROCESSES = 3


async def test_migrate_of_several_processes_at_once_is_done_once(database_url: str, tmp_path: Path) -> None:
    """Replicas that are rolled out together begin together, and must not trip over one another."""
    scripts = migrations(tmp_path / "scripts", count=2, more="import time; time.sleep(0.3)")
    arguments = [sys.executable, "-c", MIGRATE, database_url, str(scripts)]
    processes = [
        await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE) for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"

    ended = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    assert [(process.returncode, said) for process, (_, said) in zip(processes, ended, strict=True)] == [
        (0, b"") for _ in range(PROCESSES)
    ]
    assert tables(database_url) == {"t1", "t2", "alembic_version"}


async def test_a_store_writes_on_when_a_migration_is_done(database_url: str, tmp_path: Path) -> None:
    """Replicas of the version before are at work while one of the next migrates; the schema grows under them."""
    migrate(database_url, migrations(tmp_path / "first", count=1))
    async with Store(database_url) as store:
        insert = sa.text("INSERT INTO t1(id) VALUES (:id)")
        await store.write(lambda connection: connection.execute(insert, {"id": 1}).rowcount)

        await asyncio.to_thread(migrate, database_url, migrations(tmp_path / "second", count=2))

        await store.write(lambda connection: connection.execute(insert, {"id": 2}).rowcount)
    assert tables(database_url) == {"t1", "t2", "alembic_version"}
