"""What only PostgreSQL brings: a server that refuses, goes away and comes back, and other processes at work in it."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
import sqlalchemy as sa

from faos_core import store as store_module
from faos_core import store_postgres
from faos_core.errors import FaosError, IntegrityError, InvalidError, SetupError, UnavailableError
from faos_core.store import Store, Work
from tests.patience import PATIENCE_S
from tests.ports import own_port
from tests.servers.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.needs("postgres")

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("number", sa.Integer, primary_key=True), sa.Column("text", sa.String(20)))


def put(number: int, text: str = "") -> Work[int]:
    return lambda connection: connection.execute(notes.insert().values(number=number, text=text)).rowcount


def put_next(connection: sa.Connection) -> int:
    """What revisions, audit records and tokens do: read, decide, write."""
    number = (connection.execute(sa.select(sa.func.max(notes.c.number))).scalar() or 0) + 1
    connection.execute(notes.insert().values(number=number))
    return number


def numbers(connection: sa.Connection) -> list[int]:
    return list(connection.execute(sa.select(notes.c.number).order_by(notes.c.number)).scalars())


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Store]:
    async with Store(postgres_url) as store:
        await store.write(metadata.create_all)
        yield store


async def refusal(url: str) -> FaosError:
    """The error of opening it, which gives away no password."""
    with pytest.raises(FaosError) as caught:
        async with Store(url):
            pass
    error: BaseException | None = caught.value
    assert PASSWORD not in caught.value.what + caught.value.why + caught.value.next_step
    while error:
        assert PASSWORD not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__
    return caught.value


# Refusals: each says what happened, why, and what to type.


async def test_a_wrong_password_says_so(postgres: PostgresServer) -> None:
    """The commonest mistake of a first start; the password itself must not show up anywhere."""
    error = await refusal(postgres.url("postgres", password=f"{PASSWORD}x"))

    assert isinstance(error, SetupError)
    assert error.code.code == "store.login_refused"
    assert "psql" in error.next_step


async def test_an_unknown_user_says_so(postgres: PostgresServer) -> None:
    """The server answers as to a wrong password, and tells nobody which names there are."""
    assert (await refusal(postgres.url("postgres", user="nobody"))).code.code == "store.login_refused"


async def test_a_missing_database_says_so(postgres: PostgresServer) -> None:
    """A person must read createdb, not a stack trace."""
    error = await refusal(postgres.url("no_such_database"))

    assert error.code.code == "store.database_missing"
    assert "createdb" in error.next_step


async def test_no_connection_left_says_so(postgres: PostgresServer) -> None:
    """The pool of a site's server is shared with others."""
    with postgres.role("LOGIN CONNECTION LIMIT 1") as role, postgres.database(owner=role) as name:
        async with Store(postgres.url(name, user=role), readers=1):
            assert (await refusal(postgres.url(name, user=role))).code.code == "store.too_many_connections"


async def test_a_user_without_rights_is_told(postgres: PostgresServer, postgres_url: str) -> None:
    """Since PostgreSQL 15 nobody but the owner may make tables."""
    with postgres.role() as role:
        async with Store(postgres.url(sa.make_url(postgres_url).database or "", user=role)) as store:
            with pytest.raises(SetupError, match=r"store\.not_permitted"):
                await store.write(metadata.create_all)


async def test_a_database_that_takes_no_writes_says_so(postgres: PostgresServer, store: Store) -> None:
    """A standby, or one that an administrator closed for maintenance."""
    with pytest.raises(SetupError, match=r"store\.read_only"):
        await store.write(
            lambda connection: connection.exec_driver_sql("SET TRANSACTION READ ONLY") and put(1)(connection)
        )


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Nothing is misconfigured: it may be about to start."""
    error = await refusal(f"postgresql://u:{PASSWORD}@127.0.0.1:{own_port()}/d")

    assert isinstance(error, UnavailableError)
    assert "pg_isready" in error.next_step


async def test_a_server_without_tls_is_refused_where_it_is_wanted(postgres_url: str) -> None:
    """sslmode must hold, and the refusal say what it is about."""
    assert (await refusal(f"{postgres_url}?sslmode=require")).code.code == "store.tls_failed"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@h:port/d",
        f"postgres//u:{PASSWORD}@h/d",
        f"mysql://u:{PASSWORD}@h/d",
        f"postgresql+asyncpg://u:{PASSWORD}@h/d",
        f"postgresql+nonsense://u:{PASSWORD}@h/d?sslpassword={PASSWORD}",
    ],
)
async def test_a_url_that_cannot_be_used_is_not_quoted(url: str) -> None:
    """Parsers quote what they cannot read, and this has a password in it."""
    assert isinstance(await refusal(url), SetupError)


async def test_an_unknown_option_is_refused(postgres_url: str) -> None:
    """A misspelt sslmode must not be silently without effect."""
    assert (await refusal(f"{postgres_url}?sslmod=require")).code.code == "store.url_malformed"


async def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    """It would take most texts, and fail on the first name with an umlaut."""
    with postgres.database(options="ENCODING SQL_ASCII LOCALE_PROVIDER libc LOCALE 'C'") as name:
        error = await refusal(postgres.url(name))

    assert error.code.code == "store.server_unsuitable"
    assert "SQL_ASCII" in error.why


async def test_a_server_that_does_not_write_durably_is_refused(own_postgres: PostgresServer) -> None:
    """Nothing acknowledged is lost: promise 5 ends where fsync is off."""
    own_postgres.stop()
    own_postgres.start("fsync=off")

    assert (await refusal(own_postgres.url("postgres"))).code.code == "store.server_unsuitable"


@pytest.mark.parametrize(
    ("state", "kind", "code"),
    [
        ("53100", SetupError, "store.disk_full"),
        ("53300", SetupError, "store.too_many_connections"),
        ("25006", SetupError, "store.read_only"),
        ("58030", SetupError, "store.disk_failed"),
        ("XX001", IntegrityError, "store.corrupt"),
        ("55P03", UnavailableError, "store.unavailable"),
        ("57014", UnavailableError, "store.unavailable"),
        ("57P01", UnavailableError, "store.unavailable"),
        ("40001", UnavailableError, "store.unavailable"),
    ],
)
async def test_what_the_server_reports_reaches_the_caller_as_ours(
    store: Store, monkeypatch: pytest.MonkeyPatch, state: str, kind: type[FaosError], code: str
) -> None:
    """The server itself raises each state, so that driver and mapping are the real ones."""
    monkeypatch.setattr(store_module, "CONFLICT_PAUSES_S", (0.0, 0.0))

    def fail(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(kind) as caught:
        await store.write(fail)

    assert caught.value.code.code == code
    await store.write(put(1))


async def test_values_are_in_no_text_of_a_value_error(store: Store) -> None:
    """The server quotes the value in its first line: invalid input syntax for type integer: "canary"."""
    select = sa.text("SELECT CAST(:value AS integer)")

    with pytest.raises(InvalidError) as caught:
        await store.write(lambda connection: connection.execute(select, {"value": "canary-5513"}).scalar())

    error: BaseException | None = caught.value
    while error:
        assert "canary" not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("text", ["too long for the column by far", "nul\0nul"])
async def test_a_value_that_does_not_fit_is_the_requests_fault(store: Store, text: str) -> None:
    """SQLite takes anything; whoever asked must hear which side is wrong, and no value be quoted."""
    with pytest.raises(InvalidError, match=r"store\.value_refused"):
        await store.write(put(1, text))


async def test_every_connection_is_durable_and_bounded(store: Store) -> None:
    """These settings are the promise: durable at commit, and no lock or statement that lasts for ever."""

    def settings(connection: sa.Connection) -> dict[str, str]:
        names = ("synchronous_commit", "transaction_isolation", "transaction_read_only", *store_postgres.TIMEOUTS)
        return {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names}

    timeouts = {"idle_in_transaction_session_timeout": "30s", "lock_timeout": "35s", "statement_timeout": "1min"}
    writing = {"transaction_isolation": "read committed", "transaction_read_only": "off"}
    reading = {"transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    assert await store.write(settings) == {"synchronous_commit": "on"} | timeouts | writing
    assert await store.read(settings) == {"synchronous_commit": "on"} | timeouts | reading


async def test_time_outs_of_the_url_stand(postgres_url: str) -> None:
    """Whoever runs the server knows better."""
    async with Store(f"{postgres_url}?options=-c%20statement_timeout%3D7s") as store:
        assert (
            await store.read(lambda connection: connection.exec_driver_sql("SHOW statement_timeout").scalar()) == "7s"
        )


# Other processes.

OTHERS = """
import asyncio, sys
from faos_core.store import Store
from tests.contract.test_store_postgres import put_next

async def main():
    async with Store(sys.argv[1]) as store:
        for _ in range(3):
            await asyncio.gather(*(store.write(put_next) for _ in range(int(sys.argv[2]) // 3)))

asyncio.run(main())
"""


async def test_serial_writes_of_several_processes_follow_one_another(store: Store, postgres_url: str) -> None:
    """Two control planes must not both make revision 7; here, four processes make 240 numbers without gap or clash."""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OTHERS, postgres_url, "60") for _ in range(4)
    ]

    assert [await process.wait() for process in processes] == [0] * 4
    assert await store.read(numbers) == list(range(1, 241))


async def test_a_write_that_is_not_serial_waits_for_nobody(store: Store, postgres_url: str) -> None:
    """Heartbeats of a fleet must not queue behind another process's apply."""
    async with Store(postgres_url) as other:
        entered, leave = threading.Event(), threading.Event()

        def hold(_connection: sa.Connection) -> None:
            entered.set()
            assert leave.wait(PATIENCE_S)

        holding = asyncio.create_task(other.write(hold))
        await asyncio.to_thread(entered.wait, PATIENCE_S)
        serial = asyncio.create_task(Store.write(store, put(2)))

        async with Store(postgres_url) as third:
            await third.write(put(1), serial=False)
        assert not serial.done()

        leave.set()
        await asyncio.gather(holding, serial)
    assert await store.read(numbers) == [1, 2]


async def test_writes_that_deadlock_are_tried_again(store: Store, postgres_url: str) -> None:
    """Two processes may meet on the same rows in opposite order: both must be written, not one refused."""
    await store.write(lambda connection: put(1)(connection) + put(2)(connection))
    barrier = threading.Barrier(2)

    def append(number: int, letter: str) -> sa.Update:
        here = notes.update().where(notes.c.number == number)
        return here.values(text=sa.func.concat(notes.c.text, letter))

    def both(first: int, second: int, letter: str) -> Work[None]:
        meeting = iter([barrier])

        def work(connection: sa.Connection) -> None:
            connection.execute(append(first, letter))
            for once in meeting:
                once.wait(PATIENCE_S)
            connection.execute(append(second, letter))

        return work

    async with Store(postgres_url) as other:
        await asyncio.gather(store.write(both(1, 2, "a"), serial=False), other.write(both(2, 1, "b"), serial=False))

    texts = await store.read(lambda connection: connection.execute(sa.select(notes.c.text)).scalars().all())
    assert sorted(map(sorted, texts)) == [["a", "b"], ["a", "b"]]


STANDS_STILL = """
import asyncio, sys, time
from faos_core.store import Store

def stand_still(connection):
    print("in the middle", flush=True)
    time.sleep(600)

async def main():
    async with Store(sys.argv[1]) as store:
        await store.write(stand_still)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_process_that_stops_in_the_middle_does_not_stop_the_others(
    store: Store, postgres_url: str, how: signal.Signals
) -> None:
    """A paused or dead replica holds the write lock only until the server throws it out."""
    url = f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D1s"
    with subprocess.Popen([sys.executable, "-c", STANDS_STILL, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(how)

        await asyncio.wait_for(store.write(put(1)), PATIENCE_S)

        process.kill()
    assert await store.read(numbers) == [1]


async def test_a_sole_store_shuts_others_out_until_it_is_gone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes on one database would take up each other's runs."""
    monkeypatch.setattr(store_postgres, "OWNER_WAIT_MS", 200)
    async with Store(postgres_url, sole=True):
        with pytest.raises(SetupError, match=r"store\.taken"):
            async with Store(postgres_url, sole=True):
                pass

    async with Store(postgres_url, sole=True) as store:
        await store.write(metadata.create_all)


# A server that goes away.


async def test_nothing_acknowledged_is_lost_over_crashes_of_the_server(own_postgres: PostgresServer) -> None:
    """Under load, three times: acknowledged is there, refused is not, and nobody has to start again."""
    acknowledged: set[int] = set()
    refused: set[int] = set()
    source = count(1)
    stop = asyncio.Event()

    async def write_on(store: Store) -> None:
        while not stop.is_set():
            number = next(source)
            try:
                await store.write(put(number))
                acknowledged.add(number)
            except UnavailableError as error:
                if error.code.code != "store.unconfirmed":
                    refused.add(number)
                await asyncio.sleep(0.05)

    with own_postgres.database() as name:
        async with Store(own_postgres.url(name)) as store:
            await store.write(metadata.create_all)
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(write_on(store))
                for _ in range(3):
                    before = len(acknowledged)
                    await more_than(acknowledged, before + 50)
                    await asyncio.to_thread(own_postgres.stop)
                    await more_than(refused, len(refused))
                    await asyncio.to_thread(own_postgres.start)
                before = len(acknowledged)
                await more_than(acknowledged, before + 50)
                stop.set()
            kept = set(await store.read(numbers))

    assert acknowledged <= kept
    assert not refused & kept


async def more_than(grows: set[int], size: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(grows) <= size:
            await asyncio.sleep(0.01)


class Cutter:
    """Stands between a store and its server, and cuts the connection at a COMMIT: before it, or after its answer."""

    def __init__(self, server_port: int, *, after_answer: bool) -> None:
        self._server_port = server_port
        self._after_answer = after_answer
        self.cuts_left = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                threading.Thread(target=self._carry, args=(client, server, self._upwards), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, self._downwards), daemon=True).start()

    def _carry(
        self, source: socket.socket, sink: socket.socket, passes: Callable[[bytes, socket.socket], bool]
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not passes(data, sink):
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _upwards(self, data: bytes, server: socket.socket) -> bool:
        if self.cuts_left and b"COMMIT" in data and not self._after_answer:
            self.cuts_left -= 1
            return False
        server.sendall(data)
        return True

    def _downwards(self, data: bytes, client: socket.socket) -> bool:
        if self.cuts_left and b"COMMIT\0" in data and self._after_answer:
            self.cuts_left -= 1
            return False
        client.sendall(data)
        return True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()


@pytest.fixture(params=[False, True], ids=["before COMMIT", "after COMMIT"])
def cutter(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[Cutter]:
    cutter = Cutter(postgres.port, after_answer=request.param)
    yield cutter
    cutter.close()


async def test_a_lost_answer_to_commit_is_asked_for_again(postgres_url: str, cutter: Cutter) -> None:
    """Written twice, or reported as lost: either would break the journal. The server knows how each ended."""
    through = sa.make_url(postgres_url).set(port=cutter.port).render_as_string(hide_password=False)
    async with Store(through) as store:
        await store.write(metadata.create_all)
        cutter.cuts_left = 1

        made = await asyncio.gather(*(store.write(put_next) for _ in range(3)))

        assert cutter.cuts_left == 0
        assert sorted(made) == await store.read(numbers) == [1, 2, 3]


async def test_an_outcome_that_nobody_can_tell_is_said_to_be_unknown(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Not written" would be a guess, and the caller would write it again."""
    monkeypatch.setattr(store_module, "CONFIRM_S", 0.3)
    cutter = Cutter(own_postgres.port, after_answer=True)
    with own_postgres.database() as name:
        url = sa.make_url(own_postgres.url(name)).set(port=cutter.port).render_as_string(hide_password=False)
        async with Store(url) as store:
            await store.write(metadata.create_all)
            cutter.close()  # nobody gets through again
            cutter.cuts_left = 1

            with pytest.raises(UnavailableError, match=r"store\.unconfirmed"):
                await store.write(put(1))
        async with Store(own_postgres.url(name)) as store:
            assert await store.read(numbers) == [1]


async def test_a_purge_leaves_no_page_of_a_rewritten_table_as_it_was(
    own_postgres: PostgresServer,
) -> None:
    """Erasure destroys a key: its row must not stand in some page's free space."""
    with own_postgres.database() as name:
        async with Store(own_postgres.url(name)) as store:
            await store.write(metadata.create_all)
            await store.write(put(1, "canary-9242"))
            await store.write(lambda connection: connection.execute(notes.delete()).rowcount)
            assert canary_in_pages(own_postgres)

            await store.purge(rewrite=[notes])

            assert not canary_in_pages(own_postgres)


async def test_a_purge_says_when_an_older_read_keeps_what_was_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Erased" must not be said of a row that the rewritten table still holds."""
    monkeypatch.setattr(store_postgres, "PURGE_S", 0.2)
    entered, leave = threading.Event(), threading.Event()

    def read_on(connection: sa.Connection) -> list[int]:
        connection.exec_driver_sql("SELECT 1")
        entered.set()
        assert leave.wait(PATIENCE_S)
        return numbers(connection)

    await store.write(put(1))
    reading = asyncio.create_task(store.read(read_on))
    await asyncio.to_thread(entered.wait, PATIENCE_S)
    await store.write(lambda connection: connection.execute(notes.delete()).rowcount)

    with pytest.raises(UnavailableError, match=r"store\.unavailable"):
        await store.purge(rewrite=[notes])
    leave.set()
    assert await reading == [1]
    await store.purge(rewrite=[notes])


def canary_in_pages(server: PostgresServer) -> bool:
    with server.connect() as connection:
        connection.execute("CHECKPOINT")
    return any(b"canary-9242" in path.read_bytes() for path in (server.data / "base").rglob("*") if path.is_file())
