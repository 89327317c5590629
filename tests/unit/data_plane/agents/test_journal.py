from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from data_plane.agents import journal as journal_module
from data_plane.agents.interfaces import RunEffort
from data_plane.agents.journal import Journal, NewRun, OpenRun, effort_of
from data_plane.agents.steps import Ending, RecordedStep, RunState, StepKind, StepOutcome, StepRequest
from data_plane.storage.errors import UnsealedError
from data_plane.storage.service import Storage, open_storage
from faos_core.clock import SystemClock
from faos_core.errors import InternalError, InvalidError, NotFoundError
from faos_core.ids import RunId, TenantName
from faos_core.store_statement import HotStatement
from tests.servers.databases import OnDisk

ASK = StepRequest(StepKind.MODEL, "small", {"text": "canary-request"})
NEXT = StepRequest(StepKind.TOOL, "read", {"text": "next"})
DONE = StepOutcome({"text": "canary-result"})


@pytest.fixture
async def storage(tmp_path: Path, database_url: str) -> AsyncIterator[Storage]:
    async with open_storage(tmp_path / "node", tenant=TenantName("acme"), database_url=database_url) as storage:
        yield storage


@pytest.fixture
def journal(storage: Storage) -> Journal:
    return Journal(storage.store, storage.sealer, SystemClock())


async def begun(journal: Journal, **options: str) -> tuple[OpenRun, RecordedStep]:
    open_run, step = await journal.create_run(NewRun("helper", 1, "canary-input", **options), then=ASK)
    assert isinstance(step, RecordedStep)
    return open_run, step


def done(step: RecordedStep) -> RecordedStep:
    return replace(step, outcome=DONE, finished_at=SystemClock().now())


async def test_begin_counts_attempts_and_keeps_key_and_request(journal: Journal) -> None:
    """After a crash the tool must see the key of the first attempt, and the operator that there were two."""
    open_run, first = await begun(journal)

    second = await journal.begin_step(open_run, 1, NEXT)

    assert (first.attempts, second.attempts) == (1, 2)
    assert second.idempotency_key == first.idempotency_key
    assert second.request == ASK


async def test_recorded_step_can_neither_begin_nor_be_recorded_again(journal: Journal) -> None:
    """The invariant of the design: never again once it was recorded, whoever asks."""
    open_run, step = await begun(journal)
    await journal.record_step(open_run, done(step), then=NEXT)

    with pytest.raises(InternalError):
        await journal.begin_step(open_run, 1, ASK)
    with pytest.raises(InternalError):
        await journal.record_step(open_run, done(step), then=NEXT)
    _, steps = await journal.read_run(open_run.run.run_id)
    assert [each.outcome for each in steps] == [DONE, None]


async def test_end_stands(journal: Journal) -> None:
    """A success must never be overwritten by what comes later, a recovery for example."""
    open_run, step = await begun(journal)
    await journal.record_step(open_run, done(step), then=Ending(RunState.SUCCEEDED, "fine"))

    await journal.end_run(open_run, Ending(RunState.FAILED, error_code="run.defect"))

    run, _ = await journal.read_run(open_run.run.run_id)
    assert run.ending == Ending(RunState.SUCCEEDED, "fine")
    assert await journal.unfinished_runs() == []


async def test_idempotency_key_is_unique_per_agent(journal: Journal) -> None:
    """Two agents may be given the same key by two callers that do not know of each other."""
    first, _ = await begun(journal, idempotency_key="k")
    again, step = await journal.create_run(NewRun("helper", 1, "other", "k"), then=ASK)
    other, _ = await journal.create_run(NewRun("another", 1, "other", "k"), then=ASK)

    assert (again.run, step) == (first.run, None)
    assert other.run.run_id != first.run.run_id


async def test_nothing_of_a_customers_is_on_disk_in_the_clear(journal: Journal, on_disk: OnDisk) -> None:
    """The database file, its WAL and whatever lies beside them are what a thief gets."""
    open_run, step = await begun(journal, idempotency_key="canary-key", subject="canary-subject")
    await journal.record_step(open_run, done(step), then=Ending(RunState.SUCCEEDED, "canary-output"))

    content = on_disk()
    assert b"helper" in content
    assert b"canary" not in content


def run_row() -> dict[str, object]:
    plain = {"id": "run-x", "agent": "helper", "revision": 1, "state": "running", "error_code": "", "started_at_us": 1}
    return {**plain, "idempotency_index": None, "subject_index": None, "subject": None, "input": None}


STEP_ROW = {
    "run_id": "run-x",
    "sequence": 1,
    "kind": "model",
    "name": "small",
    "attempts": 1,
    "subject_index": None,
    "request": None,
    "error_code": "",
    "started_at_us": 1,
    "elapsed_ms": 0,
}
RESULT = {"r": "run-x", "s": 1, "new_result": None, "new_error_code": "", "new_finished_at_us": 1}
OUTPUT = {"r": "run-x", "new_state": "failed", "new_output": None, "new_error_code": "", "new_finished_at_us": 1}
SEALED = [
    (journal_module.INSERT_RUN, run_row(), "input"),
    (journal_module.INSERT_RUN, run_row(), "subject"),
    (journal_module.INSERT_STEP, STEP_ROW, "request"),
    (journal_module.RECORD_STEP, RESULT, "new_result"),
    (journal_module.END_RUN, OUTPUT, "new_output"),
]


@pytest.mark.parametrize(("statement", "row", "place"), SEALED)
async def test_no_statement_takes_what_is_not_sealed(
    storage: Storage, statement: HotStatement, row: dict[str, object], place: str
) -> None:
    """They go past SQLAlchemy where they can; what refuses plain text at the last moment must stand there too."""
    with pytest.raises(UnsealedError):
        await storage.store.write(lambda connection: statement.run(connection, {**row, place: b"canary"}))


async def test_effort_that_is_told_is_the_one_that_is_recorded(storage: Storage) -> None:
    """The control plane counts tokens by it: a run taken up after a crash must count as one that went through."""
    told: list[RunEffort] = []
    journal = Journal(storage.store, storage.sealer, SystemClock(), ended=lambda *of: told.append(of[2]))
    end = Ending(RunState.SUCCEEDED, "fine")
    for is_told in (True, False):
        open_run, asked = await begun(journal)
        asked = replace(asked, outcome=StepOutcome({"output_tokens": 7}), finished_at=SystemClock().now())
        called = await journal.record_step(open_run, asked, then=NEXT)
        assert isinstance(called, RecordedStep)
        effort = effort_of([asked, done(called)]) if is_told else None
        await journal.record_step(open_run, done(called), then=end, effort=effort)

    assert told == [RunEffort(turns=1, tool_calls=1, output_tokens=7)] * 2


async def test_erased_subject_takes_its_runs_along(journal: Journal, storage: Storage) -> None:
    """Erasing a person must reach the runs about them, and no others."""
    erased, _ = await begun(journal, subject="person")
    kept, _ = await begun(journal)

    await storage.erase_subject("person")

    with pytest.raises(NotFoundError):
        await journal.read_run(erased.run.run_id)
    assert (await journal.read_run(kept.run.run_id))[0].input == "canary-input"


async def test_resumed_run_of_a_subject_is_sealed_with_its_key(journal: Journal, storage: Storage) -> None:
    """Steps after a restart must fall under the same erasure as those before it."""
    await begun(journal, subject="person")

    [resumed] = await journal.unfinished_runs()

    assert resumed.subject == "person"


async def test_page_token_of_others_is_refused(journal: Journal) -> None:
    """A wrong token must not quietly give a wrong page."""
    with pytest.raises(InvalidError):
        await journal.list_runs(page_size=5, page_token="x")


async def test_cancel_cuts_off_the_step_and_nothing_is_recorded_after_it(journal: Journal) -> None:
    """What was still under way when a person said stop must find a closed book, and no restart takes it up."""
    open_run, step = await begun(journal)

    cancelled = await journal.cancel_run(open_run.run.run_id)
    with pytest.raises(InternalError):
        await journal.record_step(open_run, done(step), then=Ending(RunState.SUCCEEDED, "too late"))
    with pytest.raises(InternalError):
        await journal.begin_step(open_run, 1, ASK)

    run, [recorded] = await journal.read_run(open_run.run.run_id)
    assert run == cancelled.run
    assert recorded == cancelled.step
    assert run.ending == Ending(RunState.CANCELLED, error_code="run.cancelled")
    assert recorded.outcome == StepOutcome({}, "run.cancelled")
    assert await journal.unfinished_runs() == []


async def test_cancel_stands_and_is_new_once(journal: Journal) -> None:
    """Asking twice is what people do when the first answer was slow; a later failure must not hide it either."""
    open_run, _ = await begun(journal)
    first = await journal.cancel_run(open_run.run.run_id)

    again = await journal.cancel_run(open_run.run.run_id)
    ended = await journal.end_run(open_run, Ending(RunState.FAILED, error_code="run.defect"))

    assert (first.is_new, again.is_new) == (True, False)
    assert (again.run, again.step, ended) == (first.run, first.step, first.run)


async def test_cancel_leaves_a_finished_run_as_it_is(journal: Journal) -> None:
    """A success is never overwritten."""
    open_run, step = await begun(journal)
    await journal.record_step(open_run, done(step), then=Ending(RunState.SUCCEEDED, "fine"))

    late = await journal.cancel_run(open_run.run.run_id)

    assert (late.step, late.is_new) == (None, False)
    assert late.run.ending == Ending(RunState.SUCCEEDED, "fine")
    assert (await journal.read_run(open_run.run.run_id))[0] == late.run


async def test_cancel_of_what_never_ran_is_refused(journal: Journal) -> None:
    """A misspelt id must not look like a run that was stopped."""
    with pytest.raises(NotFoundError):
        await journal.cancel_run(RunId("run-none"))
