"""What can be seen of runs from outside, without a word of theirs: spans, measures, and who is at what."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from data_plane.agents.events import RunRecord
from data_plane.agents.steps import RecordedStep, RunState, StepKind, StepOutcome
from faos_core.ids import RunId
from faos_core.meters import SLOW_S, Counter, Gauge, Histogram, Instrument
from faos_core.names import Attribute, Metric, Span
from faos_core.tracing import OFF, OpenSpan, Tracer, Value, Word

SPANS: Final = {
    StepKind.RETRIEVAL: Span.RETRIEVAL,
    StepKind.ROUTING: Span.ROUTING,
    StepKind.MODEL: Span.MODEL_TURN,
    StepKind.TOOL: Span.TOOL_CALL,
}
INPUT, OUTPUT = "input", "output"


@dataclass(slots=True)
class ActiveRun:
    """A run that this process drives."""

    run_id: RunId
    agent: str
    started_at: datetime
    span: OpenSpan
    step: RecordedStep | None = None  # under way
    deltas: int = 0  # pieces of the answer that came in it
    output_tokens: int = 0  # of the steps before


class StepSight:
    """One step, while it is done. A context, once."""

    def __init__(
        self, sight: "RunSight", run: ActiveRun | None, step: RecordedStep, spanned: AbstractContextManager[OpenSpan]
    ) -> None:
        self._sight = sight
        self._run = run
        self._step = step
        self._spanned = spanned
        self._has_spoken = False

    def __enter__(self) -> Self:
        self._span = self._spanned.__enter__()
        self._began_s = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spanned.__exit__(kind, error, traceback)

    def delta(self) -> None:
        """A piece of the answer came."""
        if self._run is not None:
            self._run.deltas += 1
        if not self._has_spoken:
            self._has_spoken = True
            self._sight.first_token.record(time.perf_counter() - self._began_s)

    def came_to(self, outcome: StepOutcome) -> None:
        if outcome.error_code:
            self._span.fail(outcome.error_code)
        if self._step.request.kind is StepKind.TOOL:
            self._sight.tool_calls.add()
        elif self._step.request.kind is StepKind.MODEL:
            self._turned(int(outcome.result.get("input_tokens", 0)), int(outcome.result.get("output_tokens", 0)))

    def _turned(self, input_tokens: int, output_tokens: int) -> None:
        self._sight.turns.add()
        self._sight.turn_duration.record(time.perf_counter() - self._began_s)
        self._sight.tokens.add(input_tokens, INPUT)
        self._sight.tokens.add(output_tokens, OUTPUT)
        self._span.set(Attribute.INPUT_TOKENS, input_tokens)
        self._span.set(Attribute.OUTPUT_TOKENS, output_tokens)
        if self._run is not None:
            self._run.output_tokens += output_tokens


class RunSight:
    """Of all runs of a node. Belongs to the event loop."""

    def __init__(self, tracer: Tracer = OFF) -> None:
        self._tracer = tracer
        self.active: dict[RunId, ActiveRun] = {}
        self.turns = Counter(Metric.RUN_TURNS, "Turns of models.")
        self.tool_calls = Counter(Metric.RUN_TOOL_CALLS, "Calls of tools.")
        self.tokens = Counter(Metric.RUN_TOKENS, "Tokens of models.", labels=(Attribute.TOKEN_TYPE,))
        self.ended_runs = Counter(Metric.RUNS_FINISHED, "Runs that ended.", labels=(Attribute.STATE_NAME,))
        self.duration = Histogram(
            Metric.RUN_DURATION, "From a run's start to its end.", SLOW_S, labels=(Attribute.STATE_NAME,)
        )
        self.turn_duration = Histogram(Metric.TURN_DURATION, "Of a model's turn.", SLOW_S)
        self.first_token = Histogram(Metric.TURN_FIRST_TOKEN, "Until the first piece of an answer came.", SLOW_S)
        self._active = Gauge(Metric.RUNS_ACTIVE, "Runs under way.", lambda: len(self.active))

    def instruments(self) -> Sequence[Instrument]:
        counters = (self.turns, self.tool_calls, self.tokens, self.ended_runs, self._active)
        return *counters, self.duration, self.turn_duration, self.first_token

    @contextmanager
    def run(self, run: RunRecord) -> Iterator[None]:
        """While this process drives it: one span, in a trace that stays the run's over a restart."""
        attributes: dict[Attribute, Value] = {
            Attribute.OPERATION_NAME: Word(Span.RUN),
            Attribute.AGENT_NAME: run.agent,
            Attribute.RUN_NUMBER: run.run_id,
            Attribute.REVISION_NUMBER: run.revision,
        }
        with self._tracer.span(Span.RUN, attributes, target=run.agent, trace_of=run.run_id) as span:
            self.active[run.run_id] = ActiveRun(run.run_id, run.agent, run.started_at, span)
            try:
                yield
            finally:
                self.active.pop(run.run_id, None)

    def step(self, run: RunRecord, step: RecordedStep) -> StepSight:
        active = self.active.get(run.run_id)
        if active is not None:
            active.step, active.deltas = step, 0
        name = SPANS[step.request.kind]
        attributes = None if self._tracer is OFF else attributes_of(step, name)
        return StepSight(self, active, step, self._tracer.span(name, attributes, target=target_of(step)))

    def ended(self, run: RunRecord) -> None:
        state = run.ending.state
        self.ended_runs.add(1, state.value)
        if run.finished_at is not None:
            self.duration.record(max(0.0, (run.finished_at - run.started_at).total_seconds()), state.value)
        if active := self.active.get(run.run_id):
            active.span.set(Attribute.STATE_NAME, Word(state.value))
            if state is not RunState.SUCCEEDED:
                active.span.fail(run.ending.error_code)


def target_of(step: RecordedStep) -> str:
    """Of a model or a tool: its name."""
    match step.request.kind:
        case StepKind.MODEL:
            return step.request.name
        case StepKind.TOOL:
            return str(step.request.body.get("tool", ""))
        case _:
            return ""


def attributes_of(step: RecordedStep, name: Span) -> dict[Attribute, Value]:
    found: dict[Attribute, Value] = {Attribute.STEP_NUMBER: step.sequence, Attribute.OPERATION_NAME: Word(name)}
    match step.request.kind:
        case StepKind.MODEL:
            found[Attribute.MODEL_NAME] = step.request.name
        case StepKind.TOOL:
            found[Attribute.TOOL_NAME] = str(step.request.body.get("tool", ""))
            found[Attribute.TOOL_SERVER_NAME] = str(step.request.body.get("server", ""))
    return found
