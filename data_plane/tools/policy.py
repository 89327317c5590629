"""Whether a tool call may be made: one pure function over the agent's policies.

Every rule of every policy is judged. The strictest effect among those that match wins (DENY over ASK over ALLOW);
where none matches, the answer is DENY. Order never matters, so nobody has to reason about precedence. What cannot
be evaluated (a broken schema, an effect that this version does not know) counts as a match with DENY.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.json_format import MessageToDict

from data_plane.tools.interfaces import ToolCall
from faos.resource.v1.resource_pb2 import Policy, PolicyEffect, PolicyRule
from faos_core.json_schema import BadSchemaError, compile_schema, first_violation


class Effect(IntEnum):
    """Ordered by strictness; the numbers are those of PolicyEffect."""

    ALLOW = PolicyEffect.POLICY_EFFECT_ALLOW
    ASK = PolicyEffect.POLICY_EFFECT_ASK
    DENY = PolicyEffect.POLICY_EFFECT_DENY


KNOWN_EFFECTS: frozenset[int] = frozenset(Effect)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says, and which rule said it; both names are empty when no rule matched."""

    effect: Effect
    policy: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class PolicyDefect:
    """Why a Policy cannot be taken into use."""

    rule_index: int
    field: str  # as in YAML
    reason: str

    @property
    def field_path(self) -> str:
        """As in YAML, from the resource down."""
        return f"spec.rules[{self.rule_index}].{self.field}"


def judge(call: ToolCall, policies: Mapping[str, Policy]) -> Verdict:
    """The strictest effect over all matching rules; among equals the first by policy and rule name. Pure."""
    verdicts = [
        Verdict(effect, policy_name, rule.name)
        for policy_name, policy in policies.items()
        for rule in policy.rules
        if (effect := effect_on(call, rule)) is not None
    ]
    return min(verdicts, key=lambda it: (-it.effect, it.policy, it.rule), default=Verdict(Effect.DENY))


def effect_on(call: ToolCall, rule: PolicyRule) -> Effect | None:
    """The rule's effect on this call, or None when it does not match."""
    named = (not rule.tool_servers or call.server in rule.tool_servers) and (not rule.tools or call.tool in rule.tools)
    labelled = not rule.labels or not call.labels.isdisjoint(rule.labels)
    if not named or not labelled:
        return None
    try:
        fits = not rule.HasField("arguments") or first_violation(_schema(rule), dict(call.arguments)) is None
    except BadSchemaError:
        return Effect.DENY
    return _effect(rule) if fits else None


def check_policy(policy: Policy) -> tuple[PolicyDefect, ...]:
    """Everything that would keep the policy from meaning what its author wrote; empty when it is sound."""
    return tuple(_defects(policy))


def _defects(policy: Policy) -> Iterator[PolicyDefect]:
    for index, rule in enumerate(policy.rules):
        if rule.effect not in KNOWN_EFFECTS:
            yield PolicyDefect(index, "effect", "none of ALLOW, ASK, DENY")
        try:
            compile_schema(_schema(rule))
        except BadSchemaError as error:
            yield PolicyDefect(index, "arguments", str(error))


def _effect(rule: PolicyRule) -> Effect:
    return Effect(rule.effect) if rule.effect in KNOWN_EFFECTS else Effect.DENY


def _schema(rule: PolicyRule) -> dict[str, object]:
    return MessageToDict(rule.arguments)
