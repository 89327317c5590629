"""JSON Schemas that a turn is constrained to, and what a reply under them means."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_plane.tools.interfaces import ToolDefinition
from faos_core.json_schema import BadSchemaError, first_violation

EMPTY_SCHEMA_KEYS = {"$schema", "additionalProperties", "description", "properties", "required", "title", "type"}
ANSWER = "answer"  # in place of a tool's name: it is time to answer


def _refuse(constant: str) -> None:
    raise ValueError(constant)


DECODER = json.JSONDecoder(parse_constant=_refuse)


@dataclass(frozen=True, slots=True)
class Choice:
    """A reply that the schema accepts. tool is None when the model chose to answer."""

    tool: ToolDefinition | None
    arguments: dict[str, Any]


def offered_name(tool: ToolDefinition, tools: Sequence[ToolDefinition]) -> str:
    """What the model calls the tool: its name, or "server/name" where two servers have one of that name."""
    alike = [other for other in tools if other.name == tool.name]
    return tool.name if len(alike) == 1 else f"{tool.server}/{tool.name}"


def call_schema(tools: Sequence[ToolDefinition], *, may_answer: bool) -> dict[str, Any]:
    """Accepts {"tool": name, "arguments": {…}} for each tool and, with may_answer, {"tool": "answer"}."""
    definitions: dict[str, Any] = {}
    branches = [_branch(offered_name(tool, tools), tool.input_schema, definitions) for tool in tools]
    if may_answer:
        branches.append(_object({"tool": {"const": ANSWER}}))
    return {"oneOf": branches} | ({"$defs": definitions} if definitions else {})


def parse_arguments(text: str, tool: ToolDefinition) -> Choice | None:
    """The arguments in a reply; None when it is not JSON or the tool's schema refuses it."""
    arguments = _parsed(text)
    if not isinstance(arguments, dict) or not _accepts(tool.input_schema, arguments):
        return None
    return Choice(tool, arguments)


def parse_call(text: str, tools: Sequence[ToolDefinition], *, may_answer: bool) -> Choice | None:
    """The call in a reply under `call_schema`; None when there is none in it."""
    reply = _parsed(text)
    if not isinstance(reply, dict):
        return None
    if may_answer and reply.get("tool") == ANSWER:
        return Choice(None, {})
    named = [tool for tool in tools if offered_name(tool, tools) == reply.get("tool")]
    arguments = reply.get("arguments")
    if not named or not isinstance(arguments, dict) or not _accepts(named[0].input_schema, arguments):
        return None
    return Choice(named[0], arguments)


def takes_nothing(tool: ToolDefinition) -> bool:
    """Whether it declares no argument: {} is all there is to say to it, and no model needs to be asked."""
    schema = tool.input_schema
    declares = schema.get("properties") or schema.get("additionalProperties")
    return set(schema) <= EMPTY_SCHEMA_KEYS and not declares


def _branch(name: str, schema: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """One tool's shape, with its own $defs moved to the root under names of this tool."""
    prefix = f"{name}."
    body = {key: value for key, value in schema.items() if key not in ("$defs", "$schema")}
    for key, value in schema.get("$defs", {}).items():
        definitions[prefix + key] = _renamed(value, prefix)
    return _object({"tool": {"const": name}, "arguments": _renamed(body, prefix)})


def _renamed(schema: Any, prefix: str) -> Any:
    if isinstance(schema, dict):
        return {
            key: _reference(value, prefix) if key == "$ref" else _renamed(value, prefix)
            for key, value in schema.items()
        }
    return [_renamed(item, prefix) for item in schema] if isinstance(schema, list) else schema


def _reference(target: Any, prefix: str) -> Any:
    start = "#/$defs/"
    return (
        start + prefix + target.removeprefix(start) if isinstance(target, str) and target.startswith(start) else target
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _parsed(text: str) -> Any:
    """None for what is not JSON: NaN and half a surrogate pair are not, though Python takes them."""
    try:
        value = DECODER.decode(text)
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _accepts(schema: Mapping[str, Any], value: Any) -> bool:
    try:
        return first_violation(schema, value) is None
    except BadSchemaError:
        return False
