"""Fixtures: a database of each engine, and the PostgreSQL server of the session."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy.engine import make_url

from tests.servers.postgres import PostgresServer, shared_server

ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres")))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The server that all tests and all workers of this session share. Who stops it uses `own_postgres`."""
    folder = tmp_path_factory.getbasetemp()
    with shared_server(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, to be stopped and started."""
    server = PostgresServer.create()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database."""
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@dataclass(frozen=True, slots=True)
class Databases:
    """URL of a control plane's, and one for each of its nodes; None: files in their data folders."""

    cloud: str | None = None
    nodes: Sequence[str | None] = ()

    def of_node(self, place: int) -> str | None:
        return self.nodes[place] if place < len(self.nodes) else None


@pytest.fixture(params=ENGINES)
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Those of a control plane and three nodes, of each engine in turn."""
    if request.param == "sqlite":
        yield Databases()
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with ExitStack() as stack:
        cloud, *nodes = [server.url(stack.enter_context(server.database())) for _ in range(4)]
        yield Databases(cloud, nodes)


class OnDisk(Protocol):
    def __call__(self, *, log: bool = False) -> bytes:
        """All that stands on disk of the database. log: PostgreSQL's log too, which all tests share."""


@pytest.fixture
def on_disk(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> OnDisk:
    """Reads the files of `database_url`."""
    if database_url.startswith("sqlite"):
        return lambda *, log=False: content_of(tmp_path, "test.db*")
    server: PostgresServer = request.getfixturevalue("postgres")

    def read(*, log: bool = False) -> bytes:
        with server.connect(str(make_url(database_url).database)) as connection:
            connection.execute("CHECKPOINT")
            found = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        pages = content_of(server.data / "base" / str(found and found[0]))
        return pages + content_of(server.data / "pg_wal") if log else pages

    return read


def content_of(folder: Path, pattern: str = "*") -> bytes:
    """Every file below the folder, but for those that go away meanwhile."""
    content = []
    for path in folder.rglob(pattern):
        with suppress(FileNotFoundError):
            content.append(path.read_bytes() if path.is_file() else b"")
    return b"".join(content)
