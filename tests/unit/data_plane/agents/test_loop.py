import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.agents.loop import decide
from data_plane.agents.plan import Plan, RunBounds
from data_plane.agents.steps import Ending, RecordedStep, RunState, StepKind, StepOutcome, StepRequest
from data_plane.models.interfaces import Sampling
from faos.resource.v1 import resource_pb2 as resource
from faos_core.json_schema import first_violation
from tests.fakes.agents import READING_SCHEMA, definition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOOLS = (definition("read_gauge", "Reads."), definition("stop_pump", "Stops.", schema={"type": "object"}))
CHOICES = (
    resource.TOOL_CHOICE_NONE,
    resource.TOOL_CHOICE_REQUIRED,
    resource.TOOL_CHOICE_ROUTED,
    resource.TOOL_CHOICE_MODEL,
)
REPLIES = (
    "",
    "{}",
    "no json",
    '{"sensor": "a"}',
    '{"sensor": 1}',
    '{"tool": "read_gauge", "arguments": {"sensor": "a"}}',
    '{"tool": "read_gauge", "arguments": {"sensor": "b"}}',
    '{"tool": "read_gauge", "arguments": {}}',
    '{"tool": "nobody", "arguments": {}}',
    '{"tool": "answer"}',
)
PASSAGES = [{"knowledge_base": "manual", "document": "a", "chunk": 0, "text": "canary", "score": 0.5}]

outcomes = st.one_of(
    st.sampled_from([StepOutcome({}, "model.failed"), StepOutcome({"overflow": True}, "model.context")]),
    st.builds(
        lambda text, tokens, reason: StepOutcome(
            {"text": text, "input_tokens": 1, "output_tokens": tokens, "finish_reason": reason}
        ),
        st.sampled_from(REPLIES),
        st.integers(0, 40),
        st.sampled_from(["stop", "length"]),
    ),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    choice = draw(st.sampled_from(CHOICES))
    return Plan(
        agent="helper",
        question="Q?",
        instructions="",
        model="small",
        knowledge=draw(st.sampled_from([(), ("manual",)])),
        top_k=3,
        tools=TOOLS if choice != resource.TOOL_CHOICE_NONE else (),
        tool_choice=choice,
        bounds=RunBounds(
            turns=draw(st.integers(1, 6)),
            tool_calls=draw(st.integers(1, 4)),
            output_tokens=draw(st.integers(1, 200)),
            seconds=300,
        ),
        sampling=Sampling(),
    )


def outcome_of(request: StepRequest, drawn: StepOutcome, data: st.DataObject) -> StepOutcome:
    """The drawn outcome in the shape of the step's kind."""
    match request.kind:
        case StepKind.RETRIEVAL:
            return StepOutcome({"passages": data.draw(st.sampled_from([[], PASSAGES]))})
        case StepKind.ROUTING:
            chosen = data.draw(st.sampled_from([("", ""), ("plant", "read_gauge"), ("plant", "gone")]))
            return StepOutcome({"scores": [0.1, 0.2], "passage_score": None, "server": chosen[0], "tool": chosen[1]})
        case StepKind.TOOL:
            failed = data.draw(st.booleans())
            return StepOutcome({}, "tool.died") if failed else StepOutcome({"text": "41872", "is_error": False})
    return drawn


def recorded(sequence: int, request: StepRequest, outcome: StepOutcome) -> RecordedStep:
    return RecordedStep(sequence, request, outcome, NOW, NOW, 1, f"run-1.{sequence}")


def follow(plan: Plan, data: st.DataObject) -> tuple[list[RecordedStep], Ending]:
    history: list[RecordedStep] = []
    while True:
        decision = decide(plan, history, elapsed_s=0)
        assert decision == decide(plan, list(history), elapsed_s=0)
        if isinstance(decision, Ending):
            return history, decision
        assert json.loads(json.dumps(decision.body)) == decision.body
        outcome = outcome_of(decision, data.draw(outcomes), data)
        history.append(recorded(len(history) + 1, decision, outcome))


@settings(deadline=None)
@given(plans(), st.data())
def test_every_run_ends_within_its_bounds(plan: Plan, data: st.DataObject) -> None:
    """Whatever models and tools do, a run ends, and never after more turns or calls than it may have."""
    history, ending = follow(plan, data)

    kinds = [step.request.kind for step in history]
    assert kinds.count(StepKind.MODEL) <= plan.bounds.turns
    assert kinds.count(StepKind.TOOL) <= plan.bounds.tool_calls
    assert ending.state is not RunState.RUNNING
    assert (ending.state is RunState.SUCCEEDED) == (ending.error_code == "")


@settings(deadline=None)
@given(plans(), st.data())
def test_no_call_is_made_with_arguments_that_model_did_not_give(plan: Plan, data: st.DataObject) -> None:
    """A call is an action in the world: its arguments stand in the reply before it and satisfy the tool's schema."""
    history, _ = follow(plan, data)

    for before, step in zip([None, *history], history, strict=False):
        if step.request.kind is not StepKind.TOOL or step.request.body["tool"] != "read_gauge":
            continue
        assert before is not None
        assert before.outcome is not None
        arguments: dict[str, Any] = step.request.body["arguments"]
        assert first_violation(READING_SCHEMA, arguments) is None
        assert json.dumps(arguments)[1:-1] in before.outcome.result["text"]


@settings(deadline=None)
@given(plans(), st.data())
def test_calls_carry_label_for_every_untrusted_text_before_the_model(plan: Plan, data: st.DataObject) -> None:
    """A missing label would let a document order what policy denies to documents."""
    history, _ = follow(plan, data)

    for index, step in enumerate(history):
        if step.request.kind is not StepKind.TOOL or not step.request.body["arguments"]:
            continue
        prompt = history[index - 1].request.body["messages"][-1]["content"]
        labels = set(step.request.body["labels"])
        assert "model" in labels
        assert ("retrieved" in labels) == ("canary" in prompt)
        assert "tool-output" in labels or "41872" not in prompt


def test_time_that_is_over_ends_run_before_next_step() -> None:
    """The bound counts waiting too, so it must hold where no step is slow."""
    plan = Plan("a", "Q?", "", "m", (), 0, (), resource.TOOL_CHOICE_NONE, RunBounds(8, 16, 2048, 300), Sampling())

    assert decide(plan, [], elapsed_s=300) == Ending(RunState.LIMITED, error_code="run.seconds")
