"""What a run works by: its agent's definition at one revision, with the site's limits applied. Immutable."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_plane.ceiling.models import Limits
from data_plane.link.interfaces import Configuration
from data_plane.models.interfaces import Sampling
from data_plane.tools.interfaces import ToolDefinition
from faos.resource.v1 import resource_pb2 as resource

DEFAULT_TOP_K = 3


@dataclass(frozen=True, slots=True)
class RunBounds:
    """The limits of one run after the ceiling; see RunLimits in resource.proto."""

    turns: int
    tool_calls: int
    output_tokens: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `decide` knows besides the journal."""

    agent: str
    question: str
    instructions: str
    model: str
    knowledge: tuple[str, ...]
    top_k: int
    tools: tuple[ToolDefinition, ...]
    tool_choice: int  # a ToolChoice, never UNSPECIFIED
    bounds: RunBounds
    sampling: Sampling


def make_plan(
    configuration: Configuration, agent: str, question: str, *, tools: Sequence[ToolDefinition], ceiling: Limits
) -> Plan:
    """Raises KeyError when the configuration has no such agent, or not its model (validation refuses that)."""
    spec = configuration.agents[agent]
    return Plan(
        agent=agent,
        question=question,
        instructions=spec.instructions,
        model=spec.model,
        knowledge=tuple(spec.knowledge),
        top_k=max((configuration.knowledge_bases[name].top_k or DEFAULT_TOP_K for name in spec.knowledge), default=0),
        tools=tuple(tools),
        tool_choice=effective_choice(spec.tool_choice, has_tools=bool(tools)),
        bounds=effective_bounds(spec.limits, ceiling),
        sampling=sampling_of(configuration.models[spec.model].sampling),
    )


def effective_choice(declared: int, *, has_tools: bool) -> int:
    """No model here calls tools natively, so UNSPECIFIED is ROUTED; without tools every choice is NONE."""
    if not has_tools:
        return resource.TOOL_CHOICE_NONE
    return declared or resource.TOOL_CHOICE_ROUTED


def effective_bounds(declared: resource.RunLimits, ceiling: Limits) -> RunBounds:
    """0 is the default that resource.proto names; the ceiling lowers, never raises."""
    return RunBounds(
        turns=min(declared.max_turns or 8, ceiling.max_turns),
        tool_calls=min(declared.max_tool_calls or 16, ceiling.max_tool_calls),
        output_tokens=min(declared.max_output_tokens or 2048, ceiling.max_output_tokens),
        seconds=min(declared.max_seconds or 300, ceiling.max_seconds),
    )


def sampling_of(declared: resource.Sampling) -> Sampling:
    return Sampling(
        temperature=declared.temperature,
        repeat_penalty=declared.repeat_penalty or 1.0,
        max_tokens=declared.max_tokens or 256,
        seed=declared.seed,
    )
