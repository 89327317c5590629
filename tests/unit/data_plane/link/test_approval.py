"""What a control plane in the wrong hands cannot change at a site that asked to be asked."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.ceiling.models import SENSITIVE_KINDS
from data_plane.link.approval import first_unapproved, loosened
from data_plane.link.interfaces import Configuration
from data_plane.tools.interfaces import ToolCall
from data_plane.tools.policy import Effect, judge
from faos.resource.v1 import resource_pb2 as pb
from faos.resource.v1.resource_pb2 import Agent, Metadata, Policy, PolicyRule, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.kinds import field_path_names
from tests.fixtures.resources_of_a_site import knowledge_base, model, named, policy, tool_server

ALLOW, ASK, DENY = pb.POLICY_EFFECT_ALLOW, pb.POLICY_EFFECT_ASK, pb.POLICY_EFFECT_DENY


def rules(*effects: pb.PolicyEffect.ValueType) -> Policy:
    return Policy(rules=[PolicyRule(name=f"r{index}", effect=effect) for index, effect in enumerate(effects)])


POLICIES = {"may": rules(ALLOW), "ask": rules(ASK), "not": rules(DENY), "both": rules(ALLOW, DENY)}
TAKEN = Configuration(
    revision=3,
    agents={"helper": Agent(model="llm", tools=["time"], policies=["may", "not"])},
    models={"llm": model().model},
    tool_servers={"time": tool_server().tool_server},
    knowledge_bases={"rules": knowledge_base().knowledge_base},
    policies=POLICIES,
)


def refused(
    *resources: Resource, before: Configuration = TAKEN, required: frozenset[str] = SENSITIVE_KINDS
) -> str | None:
    """Kind, name and field path of the first refusal."""
    nack = first_unapproved(resources, before, required)
    if nack is None:
        return None
    assert nack.code == tunnel.NACK_CODE_APPROVAL_REQUIRED
    place = field_path_names(nack.field_path, nack.kind)
    return " ".join(filter(None, [pb.Kind.Name(nack.kind).removeprefix("KIND_"), nack.resource_name, place]))


@pytest.mark.parametrize("resource", [model(), tool_server(), knowledge_base(), policy()])
def test_what_is_new_is_refused_by_kind_and_name(resource: Resource) -> None:
    """Each of these opens something of the site, or says what may be done with it."""
    told = refused(resource, before=Configuration())

    assert told is not None
    assert resource.metadata.name in told
    assert refused(resource, before=Configuration(), required=frozenset()) is None


def test_what_the_site_took_before_stays_taken_and_a_change_does_not() -> None:
    """A site that closes the door must not lose what runs; and an old name is no cover for new content."""
    assert refused(model(), tool_server(), knowledge_base()) is None
    assert refused(model(), tool_server(program="another")) == "TOOL_SERVER time"


def test_agents_without_tools_need_nothing() -> None:
    """They can only talk: to models that the site has taken."""
    agent = Resource(metadata=named("new"), agent=Agent(model="llm", instructions="Answer.", policies=["may"]))

    assert refused(agent) is None


@pytest.mark.parametrize(
    ("tools", "policies", "field"),
    [
        (["time"], ["may", "not"], None),
        (["time"], ["not"], None),  # loses what only allows
        (["time"], ["may", "not", "not2"], None),  # gains what only denies
        ([], ["may"], None),
        (["time"], ["may"], "spec.policies"),  # loses what denies
        (["time"], ["may", "ask"], "spec.policies"),
        (["time"], ["may", "not", "both"], "spec.policies"),
        (["time", "other"], ["may", "not"], "spec.tools"),
        (["other"], ["not"], None),  # nothing allows anything
    ],
)
def test_agent_that_may_do_more_is_refused_at_the_field(
    tools: list[str], policies: list[str], field: str | None
) -> None:
    """Taking a policy off an agent loosens it without touching a single policy."""
    now = POLICIES | {"not2": rules(DENY)}
    before = replace(TAKEN, policies=now)
    others = [Resource(metadata=Metadata(name=name), policy=each) for name, each in now.items()]
    agent = Resource(metadata=named("helper"), agent=Agent(model="llm", tools=tools, policies=policies))

    told = refused(*others, agent, before=before)

    assert told == (f"AGENT helper {field}" if field else None)
    assert refused(*others, agent, before=before, required=SENSITIVE_KINDS - {"Policy"}) is None


def test_new_agent_with_tools_counts_from_nothing() -> None:
    """A second agent beside the restricted one would be the way around its restrictions."""
    others = [Resource(metadata=Metadata(name=name), policy=each) for name, each in POLICIES.items()]
    agent = Resource(metadata=named("new"), agent=Agent(model="llm", tools=["time"], policies=["may"]))

    assert refused(*others, agent) == "AGENT new spec.policies"


SETS = st.sets(st.sampled_from(sorted(POLICIES)))
SERVERS = st.sets(st.sampled_from(["time", "other"]))


@given(SETS, SERVERS, SETS, SERVERS)
def test_what_is_not_loosened_is_judged_no_milder(
    policies_before: set[str], tools_before: set[str], policies_now: set[str], tools_now: set[str]
) -> None:
    """Held against the judge itself: whatever passes as no loosening lets no call through that was stopped."""
    was = Agent(tools=sorted(tools_before), policies=sorted(policies_before))
    now = Agent(tools=sorted(tools_now), policies=sorted(policies_now))
    if loosened(was, POLICIES, now, POLICIES) is not None:
        return

    for server in tools_now:
        call = ToolCall(server, "any", {})
        judged = judge(call, {name: POLICIES[name] for name in policies_now}).effect
        known = server in tools_before
        before = judge(call, {name: POLICIES[name] for name in policies_before}).effect if known else Effect.DENY
        assert judged >= before
