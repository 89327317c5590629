"""The durable journal of runs: what was begun, and what came of it.

A step is begun (durably, counted) before it runs and recorded (durably) before anything that follows from it. A
recorded step never runs again; one that was begun and not recorded may, with the same idempotency key. Recording a
step and beginning the next, or ending the run, is one transaction: nothing can stand between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from data_plane.agents.errors import PAGE_TOKEN_MALFORMED, RUN_CANCELLED, RUN_UNKNOWN, STEP_RECORDED
from data_plane.agents.events import RunRecord
from data_plane.agents.interfaces import RunEffort, RunEnded
from data_plane.agents.models import runs, steps
from data_plane.agents.steps import Ending, RecordedStep, RunState, StepKind, StepOutcome, StepRequest
from data_plane.storage.sealer import Sealer
from faos_core.clock import Clock
from faos_core.errors import InternalError, InvalidError, NotFoundError
from faos_core.ids import RunId, new_id
from faos_core.store import Store
from faos_core.store_statement import HotStatement

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as a caller asks for it."""

    agent: str
    revision: int
    input: str
    idempotency_key: str = ""  # "" is none
    subject: str = ""  # "" is the tenant's own


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run in progress: what every write about it needs."""

    run: RunRecord
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancel came to. step: the one that it cut off; None for a run that had ended in another way before."""

    run: RunRecord
    step: RecordedStep | None = None
    is_new: bool = False  # it was this cancel that ended the run


class Journal:
    """Runs and steps over a node's store. Every write is durable when it returns; all raise as `Store.write`."""

    def __init__(self, store: Store, sealer: Sealer, clock: Clock, *, ended: RunEnded | None = None) -> None:
        """ended: hears of each run's end."""
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._ended = ended

    async def create_run(
        self, new: NewRun, *, then: StepRequest | Ending
    ) -> tuple[OpenRun, RecordedStep | RunRecord | None]:
        """The run, and its first step, begun in the same transaction (or the run, ended at once).

        An earlier run of the same agent and idempotency key stands: that one, and None.
        """
        run_id, now = RunId(new_id("run")), self._clock.now()
        run = RunRecord(run_id, new.agent, new.revision, new.input, now, Ending(RunState.RUNNING))

        def create(connection: sa.Connection) -> tuple[OpenRun, RecordedStep | RunRecord | None]:
            if existing := self._find_by_key(connection, new):
                return self._open_run(connection, existing), None
            INSERT_RUN.run(connection, self._run_row(connection, run, new))
            open_run = OpenRun(run, new.subject)
            return open_run, self._follow(connection, open_run, 1, then)

        return await self._store.write(create)

    async def begin_step(self, open_run: OpenRun, sequence: int, request: StepRequest) -> RecordedStep:
        """Begin the step, or begin it again after a crash: its attempts count up, its request stays.

        Raises: InternalError (run.step_recorded): it has a result already and must not run.
        """

        def begin(connection: sa.Connection) -> RecordedStep:
            row = connection.execute(SELECT_STEP, {"r": open_run.run.run_id, "s": sequence}).first()
            if row is None:
                return self._insert_step(connection, open_run, sequence, request)
            if row.finished_at_us is not None:
                raise InternalError(STEP_RECORDED, run_id=open_run.run.run_id, sequence=sequence)
            connection.execute(BEGIN_AGAIN, {"r": open_run.run.run_id, "s": sequence})
            return self._step(connection, row, attempts=row.attempts + 1)

        return await self._store.write(begin)

    async def record_step(
        self,
        open_run: OpenRun,
        step: RecordedStep,
        *,
        then: StepRequest | Ending,
        elapsed_s: float = 0.0,
        effort: RunEffort | None = None,
    ) -> RecordedStep | RunRecord:
        """Record a begun step's outcome; in the same transaction begin the next step, or end the run.

        step: with its outcome and finished_at. elapsed_s: how long the run has been under way. effort: of the whole
        run, this step among it, from who has all of its steps at hand; None has it looked up where it is asked for.
        Returns the begun step, or the ended run.
        Raises: InternalError (run.step_recorded) when it has a result already, or is gone (its subject was erased).
        """

        def record(connection: sa.Connection) -> RecordedStep | RunRecord:
            self._record(connection, open_run, step)
            return self._follow(connection, open_run, step.sequence + 1, then, elapsed_s, effort)

        return await self._store.write(record)

    async def end_run(self, open_run: OpenRun, ending: Ending) -> RunRecord:
        """End a run outside a step, for example because its agent is gone. Returns the run as it stands now."""
        return await self._store.write(lambda connection: self._end(connection, open_run, ending))

    async def cancel_run(self, run_id: RunId) -> Cancellation:
        """End a run in progress as cancelled, and in the same transaction record the step that it has begun as cut
        off: nothing of it can be recorded any more, now or after a crash. A run that has ended stays as it is.

        Raises NotFoundError (run.unknown).
        """

        def cancel(connection: sa.Connection) -> Cancellation:
            open_run = self._open_run(connection, self._run(connection, run_id))
            if open_run.run.finished_at is None:
                step = self._cut_off(connection, open_run)
                ending = Ending(RunState.CANCELLED, error_code=RUN_CANCELLED.code)
                return Cancellation(self._end(connection, open_run, ending), step, is_new=True)
            if open_run.run.ending.state is not RunState.CANCELLED:
                return Cancellation(open_run.run)
            return Cancellation(open_run.run, self._last_step(connection, run_id))

        return await self._store.write(cancel)

    async def read_run(self, run_id: RunId) -> tuple[RunRecord, list[RecordedStep]]:
        """One consistent view. Raises NotFoundError (run.unknown, or its subject was erased)."""

        def read(connection: sa.Connection) -> tuple[RunRecord, list[RecordedStep]]:
            row = self._run(connection, run_id)
            found = connection.execute(SELECT_STEPS, {"r": run_id}).all()
            return self._open_run(connection, row).run, [self._step(connection, step) for step in found]

        return await self._store.read(read)

    async def find_run(self, agent: str, idempotency_key: str) -> RunId | None:
        """The agent's run of this key; None without one."""
        new = NewRun(agent, 0, "", idempotency_key)
        found = await self._store.read(lambda connection: self._find_by_key(connection, new))
        return RunId(found.id) if found else None

    async def list_runs(self, *, page_size: int, page_token: str) -> tuple[list[RunRecord], str]:
        """Newest first, and the token of the next page. Raises InvalidError (run.page_token_malformed)."""
        if page_token and not page_token.startswith("run-"):
            raise InvalidError(PAGE_TOKEN_MALFORMED)

        def read(connection: sa.Connection) -> list[RunRecord]:
            page = SELECT_RUNS.where(runs.c.id < page_token) if page_token else SELECT_RUNS
            rows = connection.execute(page.limit(page_size + 1)).all()
            return [self._open_run(connection, row).run for row in rows]

        found = await self._store.read(read)
        shown = found[:page_size]
        return shown, shown[-1].run_id if len(found) > page_size else ""

    async def unfinished_runs(self) -> list[OpenRun]:
        """Every run in state RUNNING, oldest first."""

        def read(connection: sa.Connection) -> list[OpenRun]:
            return [self._open_run(connection, row) for row in connection.execute(SELECT_RUNNING).all()]

        return await self._store.read(read)

    async def count_finished(self) -> int:
        return await self._store.read(lambda connection: connection.execute(COUNT_FINISHED).scalar_one())

    async def count_by_state(self) -> dict[RunState, int]:
        """Runs that ended, by how."""
        ended = runs.c.finished_at_us.is_not(None)
        query = sa.select(runs.c.state, sa.func.count()).where(ended).group_by(runs.c.state)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        return {RunState(state): count for state, count in rows}

    def _run(self, connection: sa.Connection, run_id: str) -> "sa.Row[Any]":
        row = connection.execute(SELECT_RUN, {"r": run_id}).first()
        if row is None:
            raise NotFoundError(RUN_UNKNOWN, run_id=run_id[:80])
        return row

    def _last_step(self, connection: sa.Connection, run_id: str) -> RecordedStep:
        return self._step(connection, connection.execute(SELECT_LAST_STEP, {"r": run_id}).one())

    def _cut_off(self, connection: sa.Connection, open_run: OpenRun) -> RecordedStep:
        """A run in progress always has one step that is begun, its last."""
        begun = self._last_step(connection, open_run.run.run_id)
        step = replace(begun, outcome=StepOutcome({}, RUN_CANCELLED.code), finished_at=self._clock.now())
        self._record(connection, open_run, step)
        return step

    def _find_by_key(self, connection: sa.Connection, new: NewRun) -> "sa.Row[Any] | None":
        if not new.idempotency_key:
            return None
        index = self._sealer.blind_index(runs.c.idempotency_index, new.idempotency_key)
        return connection.execute(SELECT_BY_KEY, {"agent": new.agent, "key": index}).first()

    def _run_row(self, connection: sa.Connection, run: RunRecord, new: NewRun) -> dict[str, Any]:
        seal = self._sealing(connection, run.run_id, new.subject)
        key = new.idempotency_key
        return {
            "id": run.run_id,
            "agent": run.agent,
            "revision": run.revision,
            "state": run.ending.state.value,
            "idempotency_index": self._sealer.blind_index(runs.c.idempotency_index, key) if key else None,
            "subject_index": self._sealer.subject_index(new.subject) if new.subject else None,
            "subject": seal(runs.c.subject, new.subject) if new.subject else None,
            "input": seal(runs.c.input, run.input),
            "error_code": "",
            "started_at_us": _microseconds(run.started_at),
        }

    def _insert_step(
        self, connection: sa.Connection, open_run: OpenRun, sequence: int, request: StepRequest, elapsed_s: float = 0.0
    ) -> RecordedStep:
        run_id, now = open_run.run.run_id, self._clock.now()
        seal = self._sealing(connection, step_row(run_id, sequence), open_run.subject)
        row = {
            "run_id": run_id,
            "sequence": sequence,
            "kind": request.kind.value,
            "name": request.name,
            "attempts": 1,
            "subject_index": self._sealer.subject_index(open_run.subject) if open_run.subject else None,
            "request": seal(steps.c.request, request.body),
            "error_code": "",
            "started_at_us": _microseconds(now),
            "elapsed_ms": int(elapsed_s * 1000),
        }
        INSERT_STEP.run(connection, row)
        return RecordedStep(sequence, request, None, now, None, 1, idempotency_key(run_id, sequence), elapsed_s)

    def _record(self, connection: sa.Connection, open_run: OpenRun, step: RecordedStep) -> None:
        if step.outcome is None or step.finished_at is None:
            raise ValueError("a step is recorded with its outcome")
        run_id = open_run.run.run_id
        seal = self._sealing(connection, step_row(run_id, step.sequence), open_run.subject)
        values = {
            "r": run_id,
            "s": step.sequence,
            "new_result": seal(steps.c.result, step.outcome.result),
            "new_error_code": step.outcome.error_code,
            "new_finished_at_us": _microseconds(step.finished_at),
        }
        if RECORD_STEP.run(connection, values) != 1:
            raise InternalError(STEP_RECORDED, run_id=run_id, sequence=step.sequence)

    def _follow(
        self,
        connection: sa.Connection,
        open_run: OpenRun,
        sequence: int,
        then: StepRequest | Ending,
        elapsed_s: float = 0.0,
        effort: RunEffort | None = None,
    ) -> RecordedStep | RunRecord:
        if isinstance(then, Ending):
            return self._end(connection, open_run, then, effort)
        return self._insert_step(connection, open_run, sequence, then, elapsed_s)

    def _end(
        self, connection: sa.Connection, open_run: OpenRun, ending: Ending, effort: RunEffort | None = None
    ) -> RunRecord:
        """What ended once stays as it ended: a second ending changes nothing. Returns the run as it stands."""
        run, finished_at = open_run.run, self._clock.now()
        seal = self._sealing(connection, run.run_id, open_run.subject)
        values = {
            "r": run.run_id,
            "new_state": ending.state.value,
            "new_output": seal(runs.c.output, ending.output),
            "new_error_code": ending.error_code,
            "new_finished_at_us": _microseconds(finished_at),
        }
        ended = RunRecord(run.run_id, run.agent, run.revision, run.input, run.started_at, ending, finished_at)
        if END_RUN.run(connection, values):
            if self._ended:
                self._ended(connection, ended, effort or self._effort(connection, run.run_id))
            return ended
        row = connection.execute(SELECT_RUN, {"r": run.run_id}).first()
        return self._open_run(connection, row).run if row else ended

    def _effort(self, connection: sa.Connection, run_id: str) -> RunEffort:
        rows = connection.execute(SELECT_STEPS, {"r": run_id}).all()
        return effort_of([self._step(connection, row) for row in rows])

    def _sealing(self, connection: sa.Connection, row: str, subject: str) -> Callable[[sa.Column[Any], Any], bytes]:
        return lambda column, value: self._sealer.seal_json(connection, column, row, value, subject=subject)

    def _open_run(self, connection: sa.Connection, row: "sa.Row[Any]") -> OpenRun:
        def opened(column: sa.Column[Any], value: bytes | None) -> str:
            return self._sealer.unseal_json(connection, column, row.id, value) if value is not None else ""

        ending = Ending(RunState(row.state), opened(runs.c.output, row.output), row.error_code)
        run = RunRecord(
            RunId(row.id),
            row.agent,
            row.revision,
            opened(runs.c.input, row.input),
            _moment(row.started_at_us),
            ending,
            _moment(row.finished_at_us) if row.finished_at_us is not None else None,
        )
        return OpenRun(run, opened(runs.c.subject, row.subject))

    def _step(self, connection: sa.Connection, row: "sa.Row[Any]", *, attempts: int | None = None) -> RecordedStep:
        place = step_row(row.run_id, row.sequence)
        body = self._sealer.unseal_json(connection, steps.c.request, place, row.request)
        outcome = None
        if row.finished_at_us is not None:
            result = self._sealer.unseal_json(connection, steps.c.result, place, row.result)
            outcome = StepOutcome(result, row.error_code)
        return RecordedStep(
            row.sequence,
            StepRequest(StepKind(row.kind), row.name, body),
            outcome,
            _moment(row.started_at_us),
            _moment(row.finished_at_us) if row.finished_at_us is not None else None,
            attempts or row.attempts,
            idempotency_key(row.run_id, row.sequence),
            row.elapsed_ms / 1000,
        )


def effort_of(steps: Sequence[RecordedStep]) -> RunEffort:
    """Of a run with these steps, those among them that are begun or failed."""
    turns = [step for step in steps if step.request.kind is StepKind.MODEL]
    tool_calls = sum(step.request.kind is StepKind.TOOL for step in steps)
    output_tokens = sum(int(step.outcome.result.get("output_tokens", 0)) for step in turns if step.outcome)
    return RunEffort(len(turns), tool_calls, output_tokens)


def idempotency_key(run_id: str, sequence: int) -> str:
    """Of a step: the same for every attempt, over restarts, and for no other step."""
    return f"{run_id}.{sequence}"


def step_row(run_id: str, sequence: int) -> str:
    """The primary key of a step as text, which its sealed values are bound to."""
    return f"{run_id}/{sequence}"


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def _moment(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


RUN: sa.BindParameter[str] = sa.bindparam("r")
SEQUENCE: sa.BindParameter[int] = sa.bindparam("s")
INSERT_RUN = HotStatement(
    runs.insert(),
    columns=(
        "id",
        "agent",
        "revision",
        "state",
        "idempotency_index",
        "subject_index",
        "subject",
        "input",
        "error_code",
        "started_at_us",
    ),
)
INSERT_STEP = HotStatement(
    steps.insert(),
    columns=(
        "run_id",
        "sequence",
        "kind",
        "name",
        "attempts",
        "subject_index",
        "request",
        "error_code",
        "started_at_us",
        "elapsed_ms",
    ),
)
SELECT_RUN = sa.select(runs).where(runs.c.id == RUN)
SELECT_BY_KEY = sa.select(runs).where(
    runs.c.agent == sa.bindparam("agent"), runs.c.idempotency_index == sa.bindparam("key")
)
SELECT_RUNNING = sa.select(runs).where(runs.c.state == RunState.RUNNING.value).order_by(runs.c.id)
SELECT_RUNS = sa.select(runs).order_by(runs.c.id.desc())
COUNT_FINISHED = sa.select(sa.func.count()).select_from(runs).where(runs.c.state != RunState.RUNNING.value)
SELECT_STEP = sa.select(steps).where(steps.c.run_id == RUN, steps.c.sequence == SEQUENCE)
SELECT_STEPS = sa.select(steps).where(steps.c.run_id == RUN).order_by(steps.c.sequence)
SELECT_LAST_STEP = sa.select(steps).where(steps.c.run_id == RUN).order_by(steps.c.sequence.desc()).limit(1)
BEGIN_AGAIN = (
    steps.update().where(steps.c.run_id == RUN, steps.c.sequence == SEQUENCE).values(attempts=steps.c.attempts + 1)
)
RECORD_STEP = HotStatement(
    steps.update()
    .where(steps.c.run_id == RUN, steps.c.sequence == SEQUENCE, steps.c.finished_at_us.is_(None))
    .values(
        result=sa.bindparam("new_result"),
        error_code=sa.bindparam("new_error_code"),
        finished_at_us=sa.bindparam("new_finished_at_us"),
    )
)
END_RUN = HotStatement(
    runs.update()
    .where(runs.c.id == RUN, runs.c.state == RunState.RUNNING.value)
    .values(
        state=sa.bindparam("new_state"),
        output=sa.bindparam("new_output"),
        error_code=sa.bindparam("new_error_code"),
        finished_at_us=sa.bindparam("new_finished_at_us"),
    )
)
