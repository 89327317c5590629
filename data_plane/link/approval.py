"""What of an offer needs this site's own yes, and has none. Pure.

A resource of a kind in `approval_required` (site.toml) needs it when it is new here or says something else than in last
known good. So does an agent that may do more with tools than it did, where policies need it: taking a policy away from
an agent can loosen it as much as changing one, and so can giving it one, or another tool server. What the site took
before stays taken, so a site that stops admitting a kind keeps what it has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from google.protobuf.message import Message

from data_plane.link.interfaces import Configuration
from faos.resource.v1.resource_pb2 import (
    KIND_POLICY,
    POLICY_EFFECT_ALLOW,
    POLICY_EFFECT_ASK,
    Agent,
    Policy,
    Resource,
)
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.kinds import field_path_numbers, kind_name, kind_of, spec_of

GRANTING = frozenset({POLICY_EFFECT_ALLOW, POLICY_EFFECT_ASK})


def first_unapproved(
    resources: Sequence[Resource], before: Configuration, approval_required: frozenset[str]
) -> tunnel.Nack | None:
    """The NACK for the first that needs approval; None when nothing does.

    resources: valid, and all that the node would run. before: last known good. approval_required: kinds as in YAML.
    """
    policies = {each.metadata.name: each.policy for each in resources if each.HasField("policy")}
    for resource in resources:
        if kind_name(kind_of(resource)) in approval_required and _before(before, resource) != spec_of(resource):
            return _nack(resource)
        if resource.HasField("agent") and kind_name(KIND_POLICY) in approval_required:
            was = before.agents.get(resource.metadata.name, Agent())
            if field := loosened(was, before.policies, resource.agent, policies):
                return _nack(resource, field)
    return None


def loosened(
    was: Agent, policies_before: Mapping[str, Policy], agent: Agent, policies: Mapping[str, Policy]
) -> str | None:
    """The field by which an agent may do with tools what it might not before; None where it may not.

    Policies of one name are the same on both sides: where one changed, that change itself needs approval.
    """
    if not agent.tools:
        return None
    given = {*agent.policies} - {*was.policies}
    taken = {*was.policies} - {*agent.policies}
    if any(map(grants, _named(given, policies))) or any(map(restricts, _named(taken, policies_before))):
        return "spec.policies"
    more_tools = {*agent.tools} - {*was.tools}
    return "spec.tools" if more_tools and any(map(grants, _named(agent.policies, policies))) else None


def grants(policy: Policy) -> bool:
    """Whether an agent that is given it may do more."""
    return any(rule.effect in GRANTING for rule in policy.rules)


def restricts(policy: Policy) -> bool:
    """Whether an agent that loses it may do more: the strictest rule wins, so only one that just allows is no loss."""
    return any(rule.effect != POLICY_EFFECT_ALLOW for rule in policy.rules)


def _named(names: Iterable[str], policies: Mapping[str, Policy]) -> Iterable[Policy]:
    return (policies[name] for name in names if name in policies)


def _before(configuration: Configuration, resource: Resource) -> Message | None:
    groups: Mapping[str, Mapping[str, Message]] = {
        "agent": configuration.agents,
        "model": configuration.models,
        "tool_server": configuration.tool_servers,
        "knowledge_base": configuration.knowledge_bases,
        "policy": configuration.policies,
    }
    field = cast(str, resource.WhichOneof("spec"))
    return groups[field].get(resource.metadata.name)


def _nack(resource: Resource, path: str = "") -> tunnel.Nack:
    return tunnel.Nack(
        code=tunnel.NACK_CODE_APPROVAL_REQUIRED,
        kind=kind_of(resource),
        resource_name=resource.metadata.name,
        field_path=field_path_numbers(path, resource),
    )
