"""One run, from a begun step to its end: `decide` says what, `Performer` does, `Journal` keeps."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from data_plane.agents import events
from data_plane.agents.broadcast import Broadcast
from data_plane.agents.errors import SECONDS_EXHAUSTED
from data_plane.agents.events import RunRecord
from data_plane.agents.journal import Cancellation, Journal, OpenRun, effort_of
from data_plane.agents.loop import decide
from data_plane.agents.perform import Performer
from data_plane.agents.plan import Plan
from data_plane.agents.sight import RunSight, StepSight
from data_plane.agents.steps import Ending, RecordedStep, StepOutcome, StepRequest
from faos_core import store_errors
from faos_core.clock import Clock
from faos_core.errors import FaosError
from faos_core.ids import RunId

DATABASE_RETRY_S = 1.0


class RunDriver:
    """Drives runs; one instance for all of them."""

    def __init__(
        self,
        journal: Journal,
        performer: Performer,
        broadcast: Broadcast,
        clock: Clock,
        sight: RunSight | None = None,
    ) -> None:
        self._sight = sight or RunSight()
        self._journal = journal
        self._performer = performer
        self._broadcast = broadcast
        self._clock = clock
        self._began_s: dict[RunId, float] = {}  # on the monotonic clock, of the runs that are driven here

    async def drive(
        self, open_run: OpenRun, plan: Plan, revision: int, history: Sequence[RecordedStep], begun: RecordedStep
    ) -> None:
        """From a begun step to the end of the run. history: the recorded steps before it.

        revision: of the plan; a step begun under another one than the run's says so. Cancelling leaves the run as a
        crash would: `begun` is taken up again later. Raises: as the Journal; a run whose database went away is taken
        up again from there.
        """
        recorded, step = list(history), begun
        self._began_s.setdefault(open_run.run.run_id, self._clock.monotonic_s() - begun.elapsed_s)
        while True:
            recorded.append(await self._do(open_run, plan, step))
            decision = decide(plan, recorded, elapsed_s=self._elapsed_s(open_run.run.run_id))
            then = marked(decision, revision, open_run.run)
            following = await self._record(open_run, recorded, then)
            self._publish_finished(open_run.run, recorded[-1])
            if isinstance(following, RunRecord):
                self.publish_ended(following, step_count=len(recorded))
                return
            step = following
            self.publish_begun(open_run, step)

    async def _record(
        self, open_run: OpenRun, recorded: Sequence[RecordedStep], then: StepRequest | Ending
    ) -> RecordedStep | RunRecord:
        """While the database is away or full, what the last step came to is kept, so that its effects are not
        repeated.

        Where it is not known whether it was recorded, the error is raised: the journal itself must be asked.
        """
        effort = effort_of(recorded) if isinstance(then, Ending) else None
        while True:
            try:
                elapsed_s = self._elapsed_s(open_run.run.run_id)
                return await self._journal.record_step(
                    open_run, recorded[-1], then=then, elapsed_s=elapsed_s, effort=effort
                )
            except FaosError as error:
                if error.code not in (store_errors.UNAVAILABLE, store_errors.DISK_FULL):
                    raise
            await self._clock.sleep(DATABASE_RETRY_S)

    async def _do(self, open_run: OpenRun, plan: Plan, step: RecordedStep) -> RecordedStep:
        left_s = max(0.0, plan.bounds.seconds - self._elapsed_s(open_run.run.run_id))
        outcome = StepOutcome({}, SECONDS_EXHAUSTED.code)
        with self._sight.step(open_run.run, step) as sight:
            try:
                async with asyncio.timeout(left_s) as limit:
                    outcome = await self._performer.perform(
                        plan.agent,
                        step.request,
                        idempotency_key=step.idempotency_key,
                        on_delta=lambda text: self._publish_delta(open_run, step.sequence, text, sight),
                    )
            except TimeoutError:
                if not limit.expired():
                    raise
            sight.came_to(outcome)
        return recorded_with(step, outcome, self._clock.now())

    def let_go(self, run_id: RunId) -> None:
        """The run is not driven here any more."""
        self._began_s.pop(run_id, None)

    def _elapsed_s(self, run_id: RunId) -> float:
        """How long it has been under way, waiting included. Of the time before this process took it up: as the journal
        says, up to the step that was cut off. No wall clock is asked, which may be set by a day meanwhile: the time
        in which no process drove it is not counted."""
        return self._clock.monotonic_s() - self._began_s[run_id]

    def publish_begun(self, open_run: OpenRun, step: RecordedStep) -> None:
        run_id = open_run.run.run_id
        self._broadcast.publish(run_id, lambda: events.step_started(run_id, step))

    def publish_ended(self, run: RunRecord, *, step_count: int) -> None:
        self._sight.ended(run)
        self._broadcast.publish(run.run_id, lambda: events.run_finished(run, step_count=step_count))

    def publish_cancelled(self, cancelled: Cancellation) -> None:
        if step := cancelled.step:
            self._publish_finished(cancelled.run, step)
            self.publish_ended(cancelled.run, step_count=step.sequence)

    def _publish_finished(self, run: RunRecord, step: RecordedStep) -> None:
        self._broadcast.publish(run.run_id, lambda: events.step_finished(run.run_id, step))

    def _publish_delta(self, open_run: OpenRun, sequence: int, text: str, sight: StepSight) -> None:
        sight.delta()
        run_id, now = open_run.run.run_id, self._clock.now
        self._broadcast.delta(run_id, sequence, text, lambda: events.text_delta(run_id, sequence, text, now()))


def recorded_with(step: RecordedStep, outcome: StepOutcome, finished_at: datetime) -> RecordedStep:
    """As `replace`, which takes three times as long."""
    return RecordedStep(
        step.sequence,
        step.request,
        outcome,
        step.started_at,
        finished_at,
        step.attempts,
        step.idempotency_key,
        step.elapsed_s,
    )


def marked(decision: StepRequest | Ending, revision: int, run: RunRecord) -> StepRequest | Ending:
    """A step under another revision than its run's says so in its request."""
    if isinstance(decision, Ending) or revision == run.revision:
        return decision
    return replace(decision, body=decision.body | {"revision": revision})
