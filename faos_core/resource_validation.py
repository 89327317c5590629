"""Whether resources make sense: pure, run by the control plane before it signs and again by the node, which trusts
nobody.

A resource comes from the cloud, so where it needs something of the site's (a model file, a folder, a program) it
carries the *name* under which the site defined that thing, and nothing that could be a command, a path or a host.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from faos.resource.v1 import resource_pb2 as pb
from faos.resource.v1.resource_pb2 import Kind, Resource
from faos_core import kinds
from faos_core.errors import ErrorCode, define
from faos_core.ids import NAME_PATTERN
from faos_core.json_schema import struct_defect
from faos_core.labels import MAX_LABELS, is_label

MAX_RESOURCE_BYTES = 256 * 1024
MAX_REFERENCES = 256  # in one list
TOOL_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,128}")  # MCP 2025-11-25, "Tool Names"
# [namespace/]model[:version]; a namespace has no dot and no colon, so it is no host
MODEL_TAG_PATTERN = re.compile(r"([a-z0-9][a-z0-9_-]*/)?[a-z0-9][a-z0-9._-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?")
MAX_TAG = 200
# What no name has, and commands, paths, hosts and URLs do.
PLACE = re.compile(r"[/\\:.~$;|&<>@*%()\s]")
QUOTED = frozenset({"key", "value"})  # fields of texts that come from the resource

KIND_MISSING = define(
    "resource.kind_missing",
    what="It has no spec of a kind known here.",
    why="The kind of a resource is the member of its spec that is set; a newer client may know more kinds.",
    next_step="Give it a spec, or upgrade the control plane first.",
)
FIELDS_UNKNOWN = define(
    "resource.fields_unknown",
    what="It has fields that this version does not know.",
    why="What is not understood cannot be checked, and ignoring it could drop a restriction.",
    next_step="Upgrade this side first, or remove the fields.",
)
NAME_MALFORMED = define(
    "resource.name_malformed",
    what="{value!r} is not a name.",
    why="Names are 1 to 63 of a-z, 0-9 and '-', and begin and end with a letter or digit.",
    next_step="Choose a name such as 'ward-3'.",
)
LABEL_MALFORMED = define(
    "resource.label_malformed",
    what="{key!r} = {value!r} is not a label.",
    why="Keys and values of labels are names of a-z, 0-9 and '-'; there are at most 64.",
    next_step="Use a label such as 'region: north'.",
)
TAG_MALFORMED = define(
    "resource.tag_malformed",
    what="It is not the tag of a model.",
    why="Tags are a name, perhaps with a namespace before it and a version behind a colon; never a host.",
    next_step="Write it as the server shows it: faos model list",
)
TAG_WITHOUT_SERVER = define(
    "resource.tag_without_server",
    what="Only a model of an Ollama server has a tag.",
    why="With another runtime, spec.source alone says which model it is.",
    next_step="Remove spec.modelTag, or set spec.runtime to ollama.",
)
DUPLICATE = define(
    "resource.duplicate",
    what="It is declared twice.",
    why="A kind and a name stand for one resource.",
    next_step="Remove or rename one of the two.",
)
TOO_LARGE = define(
    "resource.too_large",
    what="It has {size} bytes.",
    why="A resource has at most {limit}; documents belong into a folder of the site.",
    next_step="Make it smaller.",
)
REQUIRED = define(
    "resource.required",
    what="It is missing.",
    why="A resource of this kind cannot work without it.",
    next_step="Add it.",
)
NAMES_A_PLACE = define(
    "resource.names_a_place",
    what="{value!r} looks like a command, a path or a host.",
    why="Resources carry names that the site defined, not paths, hosts or commands.",
    next_step="Define it at the site under a name, in site.toml, and write that name here.",
)
REFERENCE_MISSING = define(
    "resource.reference_missing",
    what="There is no {kind} named {value!r}.",
    why="A reference must name a resource that exists or is applied together with this one.",
    next_step="Correct the name, or apply the {kind} too.",
)
REFERENCE_ELSEWHERE = define(
    "resource.reference_elsewhere",
    what="{kind} {value!r} is never where this is.",
    why="Its metadata.sites ask for another value of the same label.",
    next_step="Let both select the same sites.",
)
REPEATED = define(
    "resource.repeated",
    what="{value!r} is there twice.",
    why="Each may be listed once.",
    next_step="Remove one of the two.",
)
OUT_OF_RANGE = define(
    "resource.out_of_range",
    what="{value} is out of range.",
    why="It must be from {low} to {high}{default}.",
    next_step="Choose a number in that range.",
)
TOO_MANY = define(
    "resource.too_many",
    what="It has {count} entries.",
    why="There may be at most {limit}.",
    next_step="Split the resource.",
)
VALUE_UNKNOWN = define(
    "resource.value_unknown",
    what="{value} is not one of the values known here.",
    why="Known: {known}.",
    next_step="Choose one of those.",
)
TOOL_MALFORMED = define(
    "resource.tool_malformed",
    what="{value!r} is not the name of a tool.",
    why="MCP tool names are 1 to 128 letters, digits, '_', '-' and '.'.",
    next_step="Write the name as the server lists it.",
)
POLICIES_MISSING = define(
    "resource.policies_missing",
    what="The agent has tools and no policy.",
    why="A call that no policy allows is denied, so every call of every tool would be denied.",
    next_step="Add a Policy with a rule that allows what is wanted, or remove the tools.",
)
TOOLS_MISSING = define(
    "resource.tools_missing",
    what="The agent must call a tool and has none.",
    why="toolChoice REQUIRED makes the first turn call a tool.",
    next_step="Add tools, or choose another toolChoice.",
)
ONE_OF_TWO = define(
    "resource.one_of_two",
    what="It is set beside {other}.",
    why="Exactly one of the two says where it is.",
    next_step="Remove one of the two.",
)
SCHEMA_INVALID = define(
    "resource.schema_invalid",
    what="It is not a JSON Schema that can be used: {reason}.",
    why="Arguments are judged by JSON Schema 2020-12, without references out of the document.",
    next_step="Correct the schema.",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one resource. message: what and why, for a person; it may quote the resource."""

    kind: Kind.ValueType
    name: str
    field_path: str  # as in YAML: "spec.tools[0]"; empty: the resource as a whole
    code: str  # of the error registry
    message: str


Key = tuple[int, str]
Found = tuple[str, ErrorCode, Mapping[str, object]]  # field path, code, fields of its texts


def validate(
    resources: Sequence[Resource], existing: Iterable[Resource] = (), *, complete: bool = False
) -> list[Violation]:
    """Everything that is wrong with these resources, given those that stand besides them; empty when nothing is.

    existing: valid ones already; one of the same kind and name as one of `resources` is replaced by it.
    complete: the two together are all that a tenant declares, and not a node's selection of it. Then policies may
        only name tool servers that exist.
    """
    universe = {_key(resource): resource for resource in (*existing, *resources)}
    seen: set[Key] = set()
    violations: list[Violation] = []
    for resource in resources:
        violations += (_violation(resource, found) for found in _own(resource))
        if _key(resource) in seen:
            violations.append(_violation(resource, ("metadata.name", DUPLICATE, {})))
        seen.add(_key(resource))
    for resource in universe.values():
        violations += (_violation(resource, found) for found in _references(resource, universe, complete))
    return violations


def _key(resource: Resource) -> Key:
    return int(kinds.kind_of(resource)), resource.metadata.name


def _violation(resource: Resource, found: Found) -> Violation:
    path, code, fields = found
    shown = {name: text[:80] if isinstance(text, str) and name in QUOTED else text for name, text in fields.items()}
    message = f"{code.what.format(**shown)} {code.why.format(**shown)}"
    return Violation(kinds.kind_of(resource), resource.metadata.name[:63], path, code.code, message)


# What a resource says by itself


def _own(resource: Resource) -> Iterator[Found]:
    if (size := resource.ByteSize()) > MAX_RESOURCE_BYTES:
        yield "", TOO_LARGE, {"size": size, "limit": MAX_RESOURCE_BYTES}
        return
    if _has_unknown_fields(resource):
        yield "", FIELDS_UNKNOWN, {}
    yield from _metadata(resource.metadata)
    field = resource.WhichOneof("spec")
    if field is None:
        yield "spec", KIND_MISSING, {}
        return
    yield from CHECKS[field](getattr(resource, field))


def _has_unknown_fields(message: Message) -> bool:
    if len(UnknownFieldSet(message)):
        return True
    return any(_has_unknown_fields(part) for part in _parts(message))


def _parts(message: Message) -> Iterator[Message]:
    """Messages directly inside; neither maps nor Structs, which can hold nothing unknown that matters."""
    for field, value in message.ListFields():
        if not kinds.ends_path(field):
            yield from value if field.is_repeated else (value,)


def _metadata(metadata: pb.Metadata) -> Iterator[Found]:
    if not metadata.name:
        yield "metadata.name", REQUIRED, {}
    elif not NAME_PATTERN.fullmatch(metadata.name):
        yield "metadata.name", NAME_MALFORMED, {"value": metadata.name}
    yield from _labels("metadata.labels", metadata.labels)
    yield from _labels("metadata.sites.matchLabels", metadata.sites.match_labels)


def _labels(path: str, labels: Mapping[str, str]) -> Iterator[Found]:
    if len(labels) > MAX_LABELS:
        yield path, TOO_MANY, {"count": len(labels), "limit": MAX_LABELS}
    for key, value in labels.items():
        if not is_label(key, value):
            yield f"{path}[{key[:80]}]", LABEL_MALFORMED, {"key": key, "value": value}


def _agent(agent: pb.Agent) -> Iterator[Found]:
    yield from _name("spec.model", agent.model, required=True)
    for field in ("knowledge", "tools", "policies"):
        yield from _names(f"spec.{field}", getattr(agent, field))
    yield from _enum("spec.toolChoice", agent.tool_choice, pb.ToolChoice)
    yield from _range("spec.limits.maxTurns", agent.limits.max_turns, 1, 1_000)
    yield from _range("spec.limits.maxToolCalls", agent.limits.max_tool_calls, 1, 10_000)
    yield from _range("spec.limits.maxOutputTokens", agent.limits.max_output_tokens, 1, 10_000_000)
    yield from _range("spec.limits.maxSeconds", agent.limits.max_seconds, 1, 30 * 24 * 3600)
    if agent.tools and not agent.policies:
        yield "spec.policies", POLICIES_MISSING, {}
    if agent.tool_choice == pb.TOOL_CHOICE_REQUIRED and not agent.tools:
        yield "spec.tools", TOOLS_MISSING, {}


def _model(model: pb.Model) -> Iterator[Found]:
    yield from _enum("spec.runtime", model.runtime, pb.ModelRuntime, required=True)
    yield from _name("spec.source", model.source, required=True)
    yield from _model_tag(model)
    yield from _range("spec.contextTokens", model.context_tokens, 256, 1_048_576)
    yield from _range("spec.sampling.temperature", model.sampling.temperature, 0, 2)
    yield from _range("spec.sampling.repeatPenalty", model.sampling.repeat_penalty, 0.5, 2)
    yield from _range("spec.sampling.maxTokens", model.sampling.max_tokens, 1, 1_048_576)


def _model_tag(model: pb.Model) -> Iterator[Found]:
    if model.runtime != pb.MODEL_RUNTIME_OLLAMA:
        if model.model_tag:
            yield "spec.modelTag", TAG_WITHOUT_SERVER, {}
    elif not model.model_tag:
        yield "spec.modelTag", REQUIRED, {}
    elif not is_model_tag(model.model_tag):
        yield "spec.modelTag", TAG_MALFORMED, {}


def is_model_tag(text: str) -> bool:
    """Whether it names a model of an Ollama server, and no registry's host: smollm2:135m, team/reader:v2."""
    return len(text) <= MAX_TAG and MODEL_TAG_PATTERN.fullmatch(text) is not None


def _tool_server(server: pb.ToolServer) -> Iterator[Found]:
    yield from _name("spec.program", server.program, required=not server.endpoint)
    yield from _name("spec.endpoint", server.endpoint)
    if server.program and server.endpoint:
        yield "spec.endpoint", ONE_OF_TWO, {"other": "spec.program"}
    if not server.allowed_tools:
        yield "spec.allowedTools", REQUIRED, {}
    yield from _tools("spec.allowedTools", server.allowed_tools)
    yield from _range("spec.callTimeoutSeconds", server.call_timeout_seconds, 1, 3600)


def _knowledge_base(base: pb.KnowledgeBase) -> Iterator[Found]:
    yield from _name("spec.folder", base.folder, required=True)
    yield from _range("spec.chunkCharacters", base.chunk_characters, 50, 8_000)
    yield from _range("spec.topK", base.top_k, 1, 50)


def _policy(policy: pb.Policy) -> Iterator[Found]:
    if not policy.rules:
        yield "spec.rules", REQUIRED, {}
    if len(policy.rules) > MAX_REFERENCES:
        yield "spec.rules", TOO_MANY, {"count": len(policy.rules), "limit": MAX_REFERENCES}
    yield from _repeats("spec.rules", [rule.name for rule in policy.rules if rule.name])
    for index, rule in enumerate(policy.rules):
        yield from _rule(f"spec.rules[{index}]", rule)


def _rule(path: str, rule: pb.PolicyRule) -> Iterator[Found]:
    yield from _name(f"{path}.name", rule.name, required=True)
    yield from _names(f"{path}.toolServers", rule.tool_servers)
    yield from _tools(f"{path}.tools", rule.tools)
    yield from _names(f"{path}.labels", rule.labels)
    yield from _enum(f"{path}.effect", rule.effect, pb.PolicyEffect, required=True)
    if rule.HasField("arguments") and (reason := struct_defect(rule.arguments)):
        yield f"{path}.arguments", SCHEMA_INVALID, {"reason": reason}


CHECKS: Mapping[str, Callable[[Any], Iterator[Found]]] = {
    "agent": _agent,
    "model": _model,
    "tool_server": _tool_server,
    "knowledge_base": _knowledge_base,
    "policy": _policy,
}


def _name(path: str, value: str, *, required: bool = False) -> Iterator[Found]:
    """A name that the site or another resource has."""
    if not value:
        if required:
            yield path, REQUIRED, {}
    elif not NAME_PATTERN.fullmatch(value):
        yield path, NAMES_A_PLACE if PLACE.search(value) else NAME_MALFORMED, {"value": value}


def _names(path: str, values: Sequence[str]) -> Iterator[Found]:
    if len(values) > MAX_REFERENCES:
        yield path, TOO_MANY, {"count": len(values), "limit": MAX_REFERENCES}
    for index, value in enumerate(values):
        yield from _name(f"{path}[{index}]", value, required=True)
    yield from _repeats(path, values)


def _tools(path: str, values: Sequence[str]) -> Iterator[Found]:
    if len(values) > MAX_REFERENCES:
        yield path, TOO_MANY, {"count": len(values), "limit": MAX_REFERENCES}
    for index, value in enumerate(values):
        if not TOOL_PATTERN.fullmatch(value):
            yield f"{path}[{index}]", TOOL_MALFORMED, {"value": value}
    yield from _repeats(path, values)


def _repeats(path: str, values: Sequence[str]) -> Iterator[Found]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield f"{path}[{index}]", REPEATED, {"value": value}
        seen.add(value)


def _enum(path: str, value: int, enum: Any, *, required: bool = False) -> Iterator[Found]:
    """A number beyond the enum comes from a newer client. enum: its wrapper."""
    if value not in enum.values():
        names = (name for name, number in enum.items() if number)
        yield path, VALUE_UNKNOWN, {"value": value, "known": ", ".join(names)}
    elif required and value == 0:
        yield path, REQUIRED, {}


def _range(path: str, value: float, low: float, high: float) -> Iterator[Found]:
    """0 always means the default."""
    if value != 0 and not (math.isfinite(value) and low <= value <= high):
        default = ", or 0 for the default" if low else ""
        yield path, OUT_OF_RANGE, {"value": value, "low": low, "high": high, "default": default}


# What resources say of each other


def _references(resource: Resource, universe: Mapping[Key, Resource], complete: bool) -> Iterator[Found]:
    for path, kind, name in _referred(resource, complete):
        if not NAME_PATTERN.fullmatch(name):
            continue
        other = universe.get((int(kind), name))
        fields = {"kind": kinds.kind_name(kind), "value": name}
        if other is None:
            yield path, REFERENCE_MISSING, fields
        elif _never_together(resource, other):
            yield path, REFERENCE_ELSEWHERE, fields


def _referred(resource: Resource, complete: bool) -> Iterator[tuple[str, Kind.ValueType, str]]:
    """Field path, kind and name of each reference."""
    agent = resource.agent
    if resource.HasField("agent"):
        yield "spec.model", pb.KIND_MODEL, agent.model
        yield from _each("spec.knowledge", pb.KIND_KNOWLEDGE_BASE, agent.knowledge)
        yield from _each("spec.tools", pb.KIND_TOOL_SERVER, agent.tools)
        yield from _each("spec.policies", pb.KIND_POLICY, agent.policies)
    if resource.HasField("policy") and complete:
        for index, rule in enumerate(resource.policy.rules):
            yield from _each(f"spec.rules[{index}].toolServers", pb.KIND_TOOL_SERVER, rule.tool_servers)


def _each(path: str, kind: Kind.ValueType, values: Sequence[str]) -> Iterator[tuple[str, Kind.ValueType, str]]:
    return ((f"{path}[{index}]", kind, name) for index, name in enumerate(values))


def _never_together(resource: Resource, other: Resource) -> bool:
    """Whether no site can match both selectors; that some site matches only one is known at the node alone."""
    ours, theirs = resource.metadata.sites.match_labels, other.metadata.sites.match_labels
    return any(key in theirs and theirs[key] != value for key, value in ours.items())
