"""What every plane relies on, whatever engine keeps its data: one suite over SQLite and a real PostgreSQL server."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import sqlalchemy as sa

from faos_core import store as store_module
from faos_core.errors import InternalError, SetupError, UnavailableError
from faos_core.store import Store
from tests.patience import PATIENCE_S

metadata = sa.MetaData()
notes = sa.Table(
    "notes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False, unique=True),
)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store(database_url) as store:
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
        assert self._open.wait(PATIENCE_S)

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, PATIENCE_S)

    def open(self) -> None:
        self._open.set()


async def test_write_is_readable_and_outlives_the_store(store: Store, database_url: str) -> None:
    """What was acknowledged must be there for every later reader, in this process and the next."""
    assert await store.write(lambda connection: add("kept")(connection) or 7) == 7

    assert await store.read(texts) == ["kept"]
    async with Store(database_url) as other:
        assert await other.read(texts) == ["kept"]


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


async def test_a_failing_write_alone_is_undone(store: Store) -> None:
    """The same where there are no neighbours, which is another path."""

    def half(connection: sa.Connection) -> None:
        add("half")(connection)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await store.write(half)

    await store.write(add("after"))
    assert await store.read(texts) == ["after"]


async def test_a_statement_that_fails_leaves_the_neighbours_their_transaction(store: Store) -> None:
    """PostgreSQL refuses everything after an error until a savepoint: they must not pay for it."""

    def wrong(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT no_such_column")

    results = await asyncio.gather(
        store.write(add("before")), store.write(wrong), store.write(add("after")), return_exceptions=True
    )

    assert isinstance(results[1], sa.exc.DBAPIError)
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

    assert await asyncio.wait_for(attempt(), PATIENCE_S) == "raised"
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


async def test_leaving_finishes_what_was_accepted(database_url: str) -> None:
    """Stopping the process must not lose writes that someone still waits for."""
    async with Store(database_url) as store:
        await store.write(metadata.create_all)
        writes = [asyncio.create_task(store.write(add(f"note {n}"))) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)

    async with Store(database_url) as store:
        assert len(await store.read(texts)) == 20


async def test_a_closed_store_refuses_work(database_url: str) -> None:
    """A write after the end must fail at once, not hang."""
    store = Store(database_url)
    with pytest.raises(UnavailableError, match=r"store\.closed"):
        await store.write(texts)
    async with store:
        pass
    with pytest.raises(UnavailableError, match=r"store\.closed"):
        await store.read(texts)


async def test_a_write_that_commits_is_a_defect(store: Store) -> None:
    """It would break atomicity of everyone in the batch, so it must never go unnoticed."""

    def work(connection: sa.Connection) -> None:
        add("early")(connection)
        connection.commit()

    with pytest.raises(InternalError, match=r"store\.transaction_ended"):
        await store.write(work)
    await store.write(add("alive"))


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
        await store.write(lambda c: c.execute(sa.text("CREATE TABLE notes(text text)")) and None)
        await asyncio.gather(*(write_for_ever(store, writer) for writer in range(10)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged(database_url: str) -> None:
    """Nothing acknowledged is lost: promise 5."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, database_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    acknowledged = {process.stdout.readline().strip() for _ in range(300)}
    process.send_signal(signal.SIGKILL)
    acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    process.wait()
    process.stdout.close()

    async with Store(database_url) as store:
        kept = await store.read(lambda connection: set(connection.exec_driver_sql("SELECT text FROM notes").scalars()))

    assert len(acknowledged) >= 300
    assert acknowledged <= kept


class Together:
    """Joint work that adds texts: "refused" is, "broken" fails all."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, connection: sa.Connection, items: Sequence[str]) -> list[BaseException | None]:
        self.calls.append(list(items))
        for text in items:
            if text != "refused":
                add(text)(connection)
        if "broken" in items:
            raise UnavailableError(store_module.CLOSED, database="d")
        return [LookupError(text) if text == "refused" else None for text in items]


async def gathered(store: Store, work: Together, *items: str) -> list[BaseException | None]:
    """What became of these, which wait together with a neighbour that must be written in any case."""
    gate = Gate()
    holding = asyncio.create_task(store.write(gate.hold))
    await gate.entered()
    writes = [asyncio.create_task(store.write_together(work, item)) for item in items]
    neighbour = asyncio.create_task(store.write(add("neighbour")))
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(holding, neighbour)
    return await asyncio.gather(*writes, return_exceptions=True)


async def test_items_that_wait_together_are_one_call(store: Store, commits: list[sa.Connection]) -> None:
    """A fleet's answers to one push come at once; a statement for each would cost ten times as much."""
    work = Together()

    assert await gathered(store, work, "a", "b", "c") == [None] * 3

    assert work.calls == [["a", "b", "c"]]
    assert sorted(await store.read(texts)) == ["a", "b", "c", "neighbour"]


async def test_item_that_is_refused_leaves_the_others(store: Store) -> None:
    """A node that was revoked must not cost the others their acknowledgement."""
    first, second, third = await gathered(store, Together(), "a", "refused", "b")

    assert (first, third) == (None, None)
    assert isinstance(second, LookupError)
    assert sorted(await store.read(texts)) == ["a", "b", "neighbour"]


async def test_joint_work_that_fails_undoes_all_its_items_and_no_neighbour(store: Store) -> None:
    """Half of it written and none acknowledged, or the other way round, would be a lie to somebody."""
    outcomes = await gathered(store, Together(), "a", "broken")

    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
    assert outcomes[0] is not outcomes[1]
    assert await store.read(texts) == ["neighbour"]


async def test_joint_work_of_one_item_alone(store: Store) -> None:
    """The path without neighbours is another one."""
    work = Together()

    await store.write_together(work, "a")
    with pytest.raises(LookupError):
        await store.write_together(work, "refused")
    with pytest.raises(UnavailableError):
        await store.write_together(work, "broken")

    assert work.calls == [["a"], ["refused"], ["broken"]]
    assert await store.read(texts) == ["a"]
