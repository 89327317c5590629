"""A real PostgreSQL server for tests: of the Debian package, in a folder of its own, on a free loopback port.

Its default collation is a language's, not C: nothing of ours may depend on how a server sorts text.
"""

import fcntl
import json
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from tests.patience import PATIENCE_S
from tests.ports import own_port

ADMIN = "faos_tests"
PASSWORD = "not-a-secret-9183"
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "max_connections=150",
    "shared_buffers=32MB",
    "lc_messages=C",
)


def programs() -> Path | None:
    """The folder of initdb and pg_ctl of the newest version here."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    folders = [*debian, *(Path(entry) for entry in os.get_exec_path())]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


def unprivileged() -> list[str]:
    """Words before a program of the server: it refuses to be root. Not `subprocess`'s own `user`: that forks, and
    what libraries do in a forked child of many threads has killed one. Raises KeyError without the user.

    Root of a user namespace has no other user to become: the server gets a namespace where the same one has a number.
    """
    if os.geteuid() != 0:
        return []
    if is_namespaced():
        return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def is_namespaced() -> bool:
    """Whether this is the root of a user namespace that holds nobody else."""
    return int(Path("/proc/self/uid_map").read_text().split()[2]) == 1


def is_here() -> bool:
    if programs() is None:
        return False
    try:
        unprivileged()
    except KeyError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One server; any number of these may stand for it, in any number of processes."""

    folder: Path
    port: int

    @classmethod
    def create(cls) -> "PostgresServer":
        """Make and start one."""
        folder = Path(tempfile.mkdtemp(prefix="faos-postgres-"))
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0 and not is_namespaced():
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        server = cls(folder, own_port())
        try:
            server._initialise(secret)
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    def _initialise(self, secret: Path) -> None:
        self._run("initdb", "--no-sync", "--auth=scram-sha-256", f"--username={ADMIN}", f"--pwfile={secret}",
                    "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")  # fmt: skip

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def is_running(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except (OSError, ValueError, IndexError):
            return False
        return True

    def start(self, *settings: str) -> None:
        """Returns when it takes connections."""
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"port={self.port}", *settings))
        self._run("pg_ctl", "-w", "-t", f"{PATIENCE_S:.0f}", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as a crash would; what was committed is found in the log at the next start."""
        self._run("pg_ctl", "-w", "-t", f"{PATIENCE_S:.0f}", "-m", "immediate", "stop")

    def remove(self) -> None:
        if self.is_running:
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, *, user: str = ADMIN, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """As the administrator; every statement stands alone."""
        conninfo = self.url(database).replace("+psycopg", "")
        return psycopg.connect(conninfo, autocommit=True)

    @contextmanager
    def database(self, *, owner: str = ADMIN, options: str = "") -> Iterator[str]:
        """A new database's name, for as long as the context is open."""
        name = f"t_{secrets.token_hex(6)}"
        with self.connect() as connection:
            create = SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ").format(Identifier(name), Identifier(owner))
            connection.execute(create + SQL(options))  # type: ignore[arg-type]  # a test's own words
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    @contextmanager
    def role(self, attributes: str = "LOGIN") -> Iterator[str]:
        """A new role's name; its password is everyone's. Its databases must be gone at the end."""
        name = f"r_{secrets.token_hex(6)}"
        with self.connect() as connection:
            create = SQL("CREATE ROLE {} PASSWORD {} ").format(Identifier(name), Literal(PASSWORD))
            connection.execute(create + SQL(attributes))  # type: ignore[arg-type]  # a test's own words
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder, "PostgreSQL is not installed"
        command = [str(folder / program), "-D", str(self.data), *arguments]
        with (self.folder / f"{program}.out").open("ab") as out:  # pg_ctl's server keeps it open: no pipe
            subprocess.run(
                [*unprivileged(), *command],
                check=True,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


@contextmanager
def shared_server(folder: Path) -> Iterator[PostgresServer]:
    """One server for every process that names the same folder: the first starts it, the last to leave removes it."""
    note = folder / "postgres.json"
    with (folder / "postgres.users").open("w") as users:
        with locked(folder):
            server = noted(note) or announced(PostgresServer.create(), note)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield server
        finally:
            with locked(folder):
                if is_last(users):
                    server.remove()
                    note.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def noted(note: Path) -> PostgresServer | None:
    if not note.exists():
        return None
    facts = json.loads(note.read_text())
    return PostgresServer(Path(facts["folder"]), facts["port"])


def announced(server: PostgresServer, note: Path) -> PostgresServer:
    note.write_text(json.dumps({"folder": str(server.folder), "port": server.port}))
    return server


def is_last(users: IO[str]) -> bool:
    """Whether no other process holds the file: a lock that everybody shares cannot be had alone."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
