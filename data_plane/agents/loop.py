"""The agent loop's decisions: from a plan and the recorded steps to the next step, or to the end. Pure.

    RETRIEVAL ─┬─ NONE ─────────────────────────────────────────────┐
               ├─ ROUTED ── ROUTING ─┬─ passages ───────────────────┤
               │                     └─ MODEL arguments ── TOOL ────┼── MODEL answer
               ├─ REQUIRED ── MODEL call ── TOOL ───────────────────┤
               └─ MODEL ── MODEL decision ─┬─ answer ───────────────┘
                              └── TOOL ◀───┘ (and decides again)

The same plan and steps always give the same decision, so a run goes on after a crash exactly where its journal
ends. A reply that is not valid is asked for again, at most `REASKS` times; no call is ever made up. A failed tool
is told to the model; the run fails only where it cannot go on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from data_plane.agents import errors, prompts
from data_plane.agents.plan import Plan
from data_plane.agents.routing import candidate_of
from data_plane.agents.schemas import Choice, call_schema, parse_arguments, parse_call, takes_nothing
from data_plane.agents.steps import (
    Ending,
    MessageRecord,
    PassageRecord,
    Purpose,
    RecordedStep,
    RunState,
    StepKind,
    StepOutcome,
    StepRequest,
)
from data_plane.models.interfaces import FinishReason, Sampling
from data_plane.tools.interfaces import ToolDefinition
from faos.resource.v1 import resource_pb2 as resource
from faos_core.errors import ErrorCode

REASKS = 2
IDENTICAL_CALLS = 3
SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))

# Where a call's values came from, for policies: see PolicyRule.labels.
FROM_MODEL = "model"
FROM_RETRIEVED = "retrieved"
FROM_TOOL = "tool-output"


class History(list[RecordedStep]):
    """The recorded steps in order, and those of each kind."""

    def __init__(self, steps: Iterable[RecordedStep]) -> None:
        super().__init__(steps)
        self.of_kind: dict[StepKind, list[RecordedStep]] = {kind: [] for kind in StepKind}
        for step in self:
            self.of_kind[step.request.kind].append(step)


def decide(plan: Plan, recorded: Sequence[RecordedStep], *, elapsed_s: float) -> StepRequest | Ending:
    """What comes next. recorded: every recorded step in order; elapsed_s: how long the run has been under way,
    waiting included."""
    history = History(recorded)
    if history and _outcome(history[-1]).error_code == errors.SECONDS_EXHAUSTED.code:
        return Ending(RunState.LIMITED, error_code=errors.SECONDS_EXHAUSTED.code)
    proposed = _proposed(plan, history)
    if isinstance(proposed, Ending):
        return proposed
    if exhausted := _exhausted(plan, history, proposed, elapsed_s):
        return Ending(RunState.LIMITED, error_code=exhausted.code)
    return proposed


def _proposed(plan: Plan, history: History) -> StepRequest | Ending:
    if not history:
        return _retrieval(plan) if plan.knowledge else _after_retrieval(plan, history)
    last = history[-1]
    kind = last.request.kind
    if kind is StepKind.TOOL:
        return _after_tool(plan, history)
    if kind is StepKind.MODEL:
        return _after_model(plan, history, last)
    if error_code := _outcome(last).error_code:
        return Ending(RunState.FAILED, error_code=error_code)
    if kind is StepKind.RETRIEVAL:
        return _after_retrieval(plan, history)
    return _after_routing(plan, history, _outcome(last).result)


def _retrieval(plan: Plan) -> StepRequest:
    body = {"query": plan.question, "knowledge": list(plan.knowledge), "top_k": plan.top_k}
    return StepRequest(StepKind.RETRIEVAL, "+".join(plan.knowledge), body)


def _after_retrieval(plan: Plan, history: History) -> StepRequest | Ending:
    if plan.tool_choice == resource.TOOL_CHOICE_NONE:
        return _answer(plan, history)
    if plan.tool_choice == resource.TOOL_CHOICE_REQUIRED:
        return _use(plan, history, plan.tools[0]) if len(plan.tools) == 1 else _call(plan, history)
    if plan.tool_choice == resource.TOOL_CHOICE_MODEL:
        return _decision(plan, history)
    return _routing(plan, history)


def _routing(plan: Plan, history: History) -> StepRequest:
    passages = _passages(history)
    body = {
        "query": plan.question,
        "candidates": [candidate_of(tool) for tool in plan.tools],
        "passage_score": passages[0]["score"] if passages else None,
    }
    return StepRequest(StepKind.ROUTING, "router", body)


def _after_routing(plan: Plan, history: History, result: dict[str, Any]) -> StepRequest | Ending:
    """A tool that is gone since it was chosen leaves the passages."""
    tool = _find(plan.tools, result["server"], result["tool"])
    return _use(plan, history, tool) if tool else _answer(plan, history)


def _after_tool(plan: Plan, history: History) -> StepRequest | Ending:
    if plan.tool_choice == resource.TOOL_CHOICE_MODEL:
        return _decision(plan, history)
    return _answer(plan, history)


def _after_model(plan: Plan, history: History, last: RecordedStep) -> StepRequest | Ending:
    outcome = _outcome(last)
    purpose = Purpose(last.request.body["purpose"])
    if outcome.error_code:
        return _after_model_error(plan, history, last)
    if purpose is Purpose.ANSWER:
        return _finished(plan, history, outcome.result)
    choice = _choice(plan, last)
    if choice is None:
        if _malformed(history, purpose) > REASKS:
            return Ending(RunState.FAILED, error_code=errors.ARGUMENTS_MALFORMED.code)
        return _ask_again(plan, history, last)
    if choice.tool is None:
        return _answer(plan, history)
    return _tool(choice.tool, choice.arguments, labels=[FROM_MODEL, *last.request.body["labels"]])


def _after_model_error(plan: Plan, history: History, last: RecordedStep) -> StepRequest | Ending:
    """Messages that did not fit are tried once more for each passage that can be left out."""
    outcome = _outcome(last)
    if outcome.result.get("overflow") and _overflows(history) <= len(_retrieved(history)):
        return _ask_again(plan, history, last)
    return Ending(RunState.FAILED, error_code=outcome.error_code)


def _ask_again(plan: Plan, history: History, last: RecordedStep) -> StepRequest | Ending:
    match Purpose(last.request.body["purpose"]):
        case Purpose.ANSWER:
            return _answer(plan, history)
        case Purpose.CALL:
            return _call(plan, history)
        case Purpose.DECISION:
            return _decision(plan, history)
        case Purpose.ARGUMENTS:
            tool = _find(plan.tools, last.request.body["server"], last.request.body["tool"])
            return _use(plan, history, tool) if tool else _answer(plan, history)


def _finished(plan: Plan, history: History, result: dict[str, Any]) -> Ending:
    cut = result["finish_reason"] == FinishReason.LENGTH and _output_tokens(history) >= plan.bounds.output_tokens
    if cut:
        return Ending(RunState.LIMITED, result["text"], errors.OUTPUT_TOKENS_EXHAUSTED.code)
    return Ending(RunState.SUCCEEDED, result["text"])


# The requests of the steps.


def _use(plan: Plan, history: History, tool: ToolDefinition) -> StepRequest:
    """Ask for the arguments of one tool; a tool that takes none is called at once."""
    if takes_nothing(tool):
        return _tool(tool, {}, labels=[])
    messages = prompts.arguments_messages(
        plan.instructions,
        plan.question,
        _context(history),
        tools=[tool],
        malformed=_malformed(history, Purpose.ARGUMENTS),
    )
    request = _model(plan, history, Purpose.ARGUMENTS, messages, schema=dict(tool.input_schema))
    request.body.update(server=tool.server, tool=tool.name)
    return request


def _call(plan: Plan, history: History) -> StepRequest:
    malformed = _malformed(history, Purpose.CALL)
    messages = prompts.arguments_messages(
        plan.instructions, plan.question, _context(history), tools=plan.tools, malformed=malformed
    )
    return _model(plan, history, Purpose.CALL, messages, schema=call_schema(plan.tools, may_answer=False))


def _decision(plan: Plan, history: History) -> StepRequest:
    malformed = _malformed(history, Purpose.DECISION)
    messages = prompts.decision_messages(
        plan.instructions, plan.question, _context(history), tools=plan.tools, malformed=malformed
    )
    return _model(plan, history, Purpose.DECISION, messages, schema=call_schema(plan.tools, may_answer=True))


def _answer(plan: Plan, history: History) -> StepRequest:
    messages = prompts.answer_messages(plan.instructions, plan.question, _context(history))
    return _model(plan, history, Purpose.ANSWER, messages, schema=None)


def _model(
    plan: Plan,
    history: History,
    purpose: Purpose,
    messages: list[MessageRecord],
    *,
    schema: dict[str, Any] | None,
) -> StepRequest:
    sampling, left = plan.sampling, plan.bounds.output_tokens - _output_tokens(history)
    body = {
        "purpose": purpose.value,
        "messages": messages,
        "json_schema": schema,
        "sampling": _sampling_fields(sampling) | {"max_tokens": min(sampling.max_tokens, left)},
        "labels": _labels(history),
    }
    return StepRequest(StepKind.MODEL, plan.model, body)


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """As `asdict`, which takes ten times as long."""
    return {name: getattr(sampling, name) for name in SAMPLING_FIELDS}


def _tool(tool: ToolDefinition, arguments: dict[str, Any], *, labels: list[str]) -> StepRequest:
    body = {"server": tool.server, "tool": tool.name, "arguments": arguments, "labels": labels}
    return StepRequest(StepKind.TOOL, tool.name, body)


# What the journal says so far.


def _exhausted(plan: Plan, history: History, proposed: StepRequest, elapsed_s: float) -> ErrorCode | None:
    bounds = plan.bounds
    if elapsed_s >= bounds.seconds:
        return errors.SECONDS_EXHAUSTED
    if proposed.kind is StepKind.MODEL and len(history.of_kind[StepKind.MODEL]) >= bounds.turns:
        return errors.TURNS_EXHAUSTED
    if proposed.kind is StepKind.MODEL and _output_tokens(history) >= bounds.output_tokens:
        return errors.OUTPUT_TOKENS_EXHAUSTED
    if proposed.kind is StepKind.TOOL and _circling(history, proposed):
        return errors.IDENTICAL_CALLS
    if proposed.kind is StepKind.TOOL and len(history.of_kind[StepKind.TOOL]) >= bounds.tool_calls:
        return errors.TOOL_CALLS_EXHAUSTED
    return None


def _circling(history: History, proposed: StepRequest) -> bool:
    """Whether this would be the third call in a row with the same tool and arguments."""
    before = history.of_kind[StepKind.TOOL][1 - IDENTICAL_CALLS :]
    alike = [step for step in before if _call_of(step.request) == _call_of(proposed)]
    return len(alike) == IDENTICAL_CALLS - 1


def _call_of(request: StepRequest) -> tuple[str, str, dict[str, Any]]:
    return request.body["server"], request.body["tool"], request.body["arguments"]


def _choice(plan: Plan, step: RecordedStep) -> Choice | None:
    body, text = step.request.body, _outcome(step).result["text"]
    if body["purpose"] != Purpose.ARGUMENTS:
        return parse_call(text, plan.tools, may_answer=body["purpose"] == Purpose.DECISION)
    tool = _find(plan.tools, body["server"], body["tool"])
    return parse_arguments(text, tool) if tool else Choice(None, {})


def _malformed(history: History, purpose: Purpose) -> int:
    """Replies at the end of the journal that were not valid: a valid one is followed by another kind of step."""
    count = 0
    for step in reversed(history):
        if step.request.kind is not StepKind.MODEL or step.request.body["purpose"] != purpose:
            break
        count += not _outcome(step).error_code
    return count


def _context(history: History) -> list[str]:
    passages = [prompts.passage_block(passage) for passage in _passages(history)]
    return passages + [_said(step) for step in history.of_kind[StepKind.TOOL]]


def _said(step: RecordedStep) -> str:
    outcome = _outcome(step)
    text = prompts.TOOL_FAILED_SENTENCE if outcome.error_code else outcome.result["text"]
    return prompts.result_block(step.request.body["tool"], text)


def _labels(history: History) -> list[str]:
    retrieved = [FROM_RETRIEVED] if _passages(history) else []
    return retrieved + ([FROM_TOOL] if history.of_kind[StepKind.TOOL] else [])


def _passages(history: History) -> list[PassageRecord]:
    """What was retrieved, less one, the worst, for each time that the messages did not fit."""
    retrieved = _retrieved(history)
    return retrieved[: max(0, len(retrieved) - _overflows(history))]


def _retrieved(history: History) -> list[PassageRecord]:
    """None where a tool won over them: they are further from the question, distract, and would taint the call."""
    if any(_outcome(step).result.get("tool") for step in history.of_kind[StepKind.ROUTING]):
        return []
    return [
        passage for step in history.of_kind[StepKind.RETRIEVAL] for passage in _outcome(step).result.get("passages", [])
    ]


def _overflows(history: History) -> int:
    return sum(bool(_outcome(step).result.get("overflow")) for step in history.of_kind[StepKind.MODEL])


def _output_tokens(history: History) -> int:
    return sum(_outcome(step).result.get("output_tokens", 0) for step in history.of_kind[StepKind.MODEL])


def _outcome(step: RecordedStep) -> StepOutcome:
    if step.outcome is None:
        raise ValueError(f"step {step.sequence} is not recorded yet")
    return step.outcome


def _find(tools: Sequence[ToolDefinition], server: str, name: str) -> ToolDefinition | None:
    return next((tool for tool in tools if (tool.server, tool.name) == (server, name)), None)
