"""Policy is the only thing between a hijacked model and a tool, so its arithmetic is proven rather than sampled."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.tools.interfaces import ToolCall
from data_plane.tools.policy import Effect, Verdict, check_policy, judge
from faos.resource.v1.resource_pb2 import Policy, PolicyRule

SCHEMAS: list[dict[str, Any] | None] = [
    None,
    {"properties": {"ward": {"enum": ["surgery"]}}, "required": ["ward"]},
    {"type": "string"},
    {"$ref": "https://example.org/schema"},
]


def rule(
    effect: int, *, name: str = "", servers: Any = (), tools: Any = (), labels: Any = (), arguments: Any = None
) -> PolicyRule:
    made = PolicyRule(name=name, tool_servers=servers, tools=tools, labels=labels, effect=effect)  # type: ignore[arg-type]
    if arguments is not None:
        made.arguments.update(arguments)
    return made


rules = st.builds(
    rule,
    st.integers(0, 4),
    name=st.sampled_from(["a", "b", ""]),
    servers=st.lists(st.sampled_from(["wards", "mail"]), max_size=1),
    tools=st.lists(st.sampled_from(["free_beds", "send"]), max_size=1),
    labels=st.lists(st.sampled_from(["retrieved", "tool-output"]), max_size=1),
    arguments=st.sampled_from(SCHEMAS),
)
calls = st.builds(
    ToolCall,
    st.sampled_from(["wards", "mail"]),
    st.sampled_from(["free_beds", "send"]),
    st.sampled_from([{}, {"ward": "surgery"}, {"ward": "attic"}]),
    st.frozensets(st.sampled_from(["retrieved", "tool-output"])),
)
policies = st.dictionaries(st.sampled_from(["p", "q", "r"]), st.lists(rules, max_size=4))


def policies_of(named: dict[str, list[PolicyRule]]) -> dict[str, Policy]:
    return {name: Policy(rules=its_rules) for name, its_rules in named.items()}


@given(calls, policies, st.randoms())
def test_judge_ignores_order(call: ToolCall, named: dict[str, list[PolicyRule]], random: Any) -> None:
    """Nobody may have to know in which order rules are read to know what they allow."""
    shuffled = {name: random.sample(its_rules, len(its_rules)) for name, its_rules in named.items()}
    names = random.sample(list(shuffled), len(shuffled))

    assert judge(call, policies_of({name: shuffled[name] for name in names})) == judge(call, policies_of(named))


@given(calls, policies, rules)
def test_judge_never_loosens_what_a_matching_rule_said(
    call: ToolCall, named: dict[str, list[PolicyRule]], extra: PolicyRule
) -> None:
    """Adding a rule may tighten what others decided, or give an answer where none matched; never loosen."""
    before = judge(call, policies_of(named))

    after = judge(call, policies_of(named | {"extra": [extra]}))

    matched = any(matches(call, it) for its_rules in named.values() for it in its_rules)
    assert after.effect >= before.effect or not matched


def matches(call: ToolCall, only: PolicyRule) -> bool:
    """Whether the rule matches at all: as a DENY it then beats an ALLOW for everything."""
    denying = PolicyRule()
    denying.CopyFrom(only)
    denying.effect = 3
    return judge(call, {"p": Policy(rules=[rule(1), denying])}).effect is Effect.DENY


@given(calls, policies)
def test_judge_denies_whatever_else_is_allowed_when_one_rule_denies(
    call: ToolCall, named: dict[str, list[PolicyRule]]
) -> None:
    """A DENY is a promise that no other policy of the agent can take back."""
    verdict = judge(call, policies_of(named | {"deny": [rule(3)]}))

    assert verdict.effect is Effect.DENY


@given(calls)
def test_judge_denies_without_policies(call: ToolCall) -> None:
    """An agent that was given no policy can do nothing."""
    assert judge(call, {}) == Verdict(Effect.DENY)


@pytest.mark.parametrize(
    ("arguments", "effect"),
    [
        ({"ward": "surgery"}, Effect.ALLOW),
        ({"ward": "attic"}, Effect.DENY),
        ({}, Effect.DENY),
        ({"ward": "surgery", "to": "x@example.org"}, Effect.DENY),
    ],
)
def test_judge_matches_arguments_by_schema(arguments: dict[str, Any], effect: Effect) -> None:
    """An allowed tool is allowed for the arguments that were meant, not for every argument."""
    schema = {"properties": {"ward": {"enum": ["surgery"]}}, "required": ["ward"], "additionalProperties": False}
    named = {"p": Policy(rules=[rule(1, name="r", arguments=schema)])}

    assert judge(ToolCall("wards", "free_beds", arguments), named).effect is effect


def test_judge_names_policy_and_rule_that_decided() -> None:
    """A person who is refused something must be able to find the rule that did it."""
    named = {"p": Policy(rules=[rule(1, name="open"), rule(2, name="ask")]), "q": Policy(rules=[rule(1, name="open")])}

    assert judge(ToolCall("wards", "free_beds", {}), named) == Verdict(Effect.ASK, "p", "ask")


@pytest.mark.parametrize(
    ("labels", "effect"), [({"retrieved"}, Effect.DENY), ({"user"}, Effect.ALLOW), (set(), Effect.ALLOW)]
)
def test_judge_matches_labels_that_intersect(labels: set[str], effect: Effect) -> None:
    """Values that came from untrusted text can be kept from a tool that others may reach."""
    named = {"p": Policy(rules=[rule(1), rule(3, labels=["retrieved", "tool-output"])])}

    assert judge(ToolCall("mail", "send", {}, frozenset(labels)), named).effect is effect


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.org/schema"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"$dynamicRef": "other.json#x"},
        {"$ref": "#/$defs/absent"},
        {"type": "no-such-type"},
        {"properties": {"a": {"$id": "https://example.org/", "type": "string"}}},
        {"pattern": "("},
    ],
)
def test_check_policy_refuses_schemas_that_cannot_be_evaluated(schema: dict[str, Any]) -> None:
    """A schema that would be fetched, or that cannot be read, is found when it is written and denies until then."""
    policy = Policy(rules=[rule(1), rule(1, arguments=schema)])

    assert [defect.field_path for defect in check_policy(policy)] == ["spec.rules[1].arguments"]
    assert judge(ToolCall("wards", "free_beds", {}), {"p": policy}).effect is Effect.DENY


def test_check_policy_refuses_a_rule_without_effect() -> None:
    """A forgotten effect must not read as ALLOW."""
    policy = Policy(rules=[rule(0, name="forgotten")])

    assert [defect.field_path for defect in check_policy(policy)] == ["spec.rules[0].effect"]
    assert judge(ToolCall("wards", "free_beds", {}), {"p": policy}) == Verdict(Effect.DENY, "p", "forgotten")


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}])
def test_judge_denies_on_a_schema_without_end(schema: dict[str, Any]) -> None:
    """A schema from the cloud that refers to itself must neither crash the node nor allow anything."""
    named = {"p": Policy(rules=[rule(1, arguments=schema)])}

    assert judge(ToolCall("wards", "free_beds", {}), named).effect is Effect.DENY


def test_check_policy_accepts_local_references() -> None:
    """References within the document are how schemas stay short; they work."""
    schema = {"$defs": {"ward": {"enum": ["surgery"]}}, "properties": {"ward": {"$ref": "#/$defs/ward"}}}
    policy = Policy(rules=[rule(1, arguments=schema)])

    assert check_policy(policy) == ()
    assert judge(ToolCall("wards", "free_beds", {"ward": "surgery"}), {"p": policy}).effect is Effect.ALLOW
    assert judge(ToolCall("wards", "free_beds", {"ward": "attic"}), {"p": policy}).effect is Effect.DENY
