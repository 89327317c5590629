"""The events of a run, numbered so that any of them can be made again from the journal.

Event 1 is RunStarted. Step s (from 1) starts with event 2s and finishes with event 2s + 1; its text deltas carry
2s. RunFinished is the event after the last step's. No counter is stored: numbers follow from the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data_plane.agents.steps import Ending, RecordedStep, RunState, StepKind
from faos.site.v1 import site_pb2 as site
from faos_core.ids import RunId
from faos_core.structs import fill
from faos_core.timestamps import timestamp

STATES = {
    RunState.RUNNING: site.RUN_STATE_RUNNING,
    RunState.SUCCEEDED: site.RUN_STATE_SUCCEEDED,
    RunState.FAILED: site.RUN_STATE_FAILED,
    RunState.LIMITED: site.RUN_STATE_LIMITED,
    RunState.CANCELLED: site.RUN_STATE_CANCELLED,
}
KINDS = {
    StepKind.RETRIEVAL: site.STEP_KIND_RETRIEVAL,
    StepKind.ROUTING: site.STEP_KIND_ROUTING,
    StepKind.MODEL: site.STEP_KIND_MODEL,
    StepKind.TOOL: site.STEP_KIND_TOOL,
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A row of the journal's runs."""

    run_id: RunId
    agent: str
    revision: int  # that it started with
    input: str
    started_at: datetime
    ending: Ending  # of state RUNNING until it ended
    finished_at: datetime | None = None


def started_number(sequence: int) -> int:
    """Of the StepStarted event, and of the deltas, of the step with this sequence."""
    return 2 * sequence


def replay(run: RunRecord, steps: Sequence[RecordedStep]) -> list[site.RunEvent]:
    """Every event that the journal knows of, in order."""
    events = [run_started(run)]
    for step in steps:
        events.append(step_started(run.run_id, step))
        if step.finished_at is not None:
            events.append(step_finished(run.run_id, step))
    if run.finished_at is not None:
        events.append(run_finished(run, step_count=len(steps)))
    return events


def run_started(run: RunRecord) -> site.RunEvent:
    started = site.RunStarted(agent=run.agent, revision=run.revision)
    return site.RunEvent(run_id=run.run_id, sequence=1, at=timestamp(run.started_at), started=started)


def step_started(run_id: RunId, step: RecordedStep) -> site.RunEvent:
    started = site.StepStarted(kind=KINDS[step.request.kind], name=step.request.name)
    number = started_number(step.sequence)
    return site.RunEvent(run_id=run_id, sequence=number, at=timestamp(step.started_at), step_started=started)


def text_delta(run_id: RunId, sequence: int, text: str, at: datetime) -> site.RunEvent:
    delta = site.TextDelta(text=text)
    return site.RunEvent(run_id=run_id, sequence=started_number(sequence), at=timestamp(at), text_delta=delta)


def step_finished(run_id: RunId, step: RecordedStep) -> site.RunEvent:
    number = started_number(step.sequence) + 1
    event = site.RunEvent(run_id=run_id, sequence=number, at=timestamp(step.finished_at))
    _tell_step(event.step_finished.step, step)
    return event


def run_finished(run: RunRecord, *, step_count: int) -> site.RunEvent:
    finished = site.RunFinished(
        state=STATES[run.ending.state], output=run.ending.output, error_code=run.ending.error_code
    )
    number = started_number(step_count + 1)
    return site.RunEvent(run_id=run.run_id, sequence=number, at=timestamp(run.finished_at), finished=finished)


def run_message(run: RunRecord) -> site.Run:
    return site.Run(
        run_id=run.run_id,
        agent=run.agent,
        revision=run.revision,
        state=STATES[run.ending.state],
        input=run.input,
        output=run.ending.output,
        error_code=run.ending.error_code,
        started_at=timestamp(run.started_at),
        finished_at=timestamp(run.finished_at),
    )


def step_message(step: RecordedStep) -> site.Step:
    message = site.Step()
    _tell_step(message, step)
    return message


def _tell_step(message: site.Step, step: RecordedStep) -> None:
    """In place: what is handed to a message that holds it is copied, whole, each time."""
    message.sequence = step.sequence
    message.kind = KINDS[step.request.kind]
    message.name = step.request.name
    message.idempotency_key = step.idempotency_key
    message.attempts = step.attempts
    message.started_at.CopyFrom(timestamp(step.started_at))
    fill(message.request, step.request.body)
    if step.finished_at is not None:
        message.finished_at.CopyFrom(timestamp(step.finished_at))
    if step.outcome is not None:
        message.error_code = step.outcome.error_code
        fill(message.result, step.outcome.result)
