import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.agents.schemas import call_schema, parse_arguments, parse_call, takes_nothing
from faos_core.json_schema import first_violation
from tests.fakes.agents import definition

WARD = {
    "type": "object",
    "properties": {"ward": {"$ref": "#/$defs/Ward"}},
    "required": ["ward"],
    "$defs": {"Ward": {"enum": ["a", "b"]}},
}
FLOOR = WARD | {"properties": {"ward": {"$ref": "#/$defs/Ward"}}, "$defs": {"Ward": {"enum": [1, 2]}}}


def test_call_schema_keeps_definitions_of_tools_apart() -> None:
    """Two tools may each define a "Ward": one must not be judged by the other's."""
    tools = [definition("beds", "Beds.", schema=WARD), definition("plan", "Plan.", schema=FLOOR)]
    schema = call_schema(tools, may_answer=False)

    assert first_violation(schema, {"tool": "beds", "arguments": {"ward": "a"}}) is None
    assert first_violation(schema, {"tool": "plan", "arguments": {"ward": 1}}) is None
    assert first_violation(schema, {"tool": "beds", "arguments": {"ward": 1}}) is not None
    assert first_violation(schema, {"tool": "answer"}) is not None
    assert first_violation(call_schema(tools, may_answer=True), {"tool": "answer"}) is None


def test_tools_of_one_name_are_offered_with_their_server() -> None:
    """The wrong server's tool of the same name would be called otherwise."""
    tools = [definition("read", "A.", server="one"), definition("read", "B.", server="two")]
    reply = json.dumps({"tool": "two/read", "arguments": {"sensor": "x"}})

    choice = parse_call(reply, tools, may_answer=False)

    assert choice is not None
    assert choice.tool == tools[1]
    assert parse_call(reply.replace("two/", ""), tools, may_answer=False) is None


def test_property_named_ref_is_no_reference() -> None:
    """A tool may call one of its parameters "$ref"; its schema must survive the move into a branch."""
    schema = {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": ["$ref"]}
    tool = definition("link", "Links.", schema=schema)

    assert first_violation(call_schema([tool], may_answer=False), {"tool": "link", "arguments": {"$ref": "x"}}) is None


def test_remote_reference_accepts_nothing() -> None:
    """Checking arguments must never fetch a schema from a network."""
    tool = definition("far", "Far.", schema={"$ref": "https://example.org/schema.json"})

    assert parse_arguments("{}", tool) is None


def test_only_tool_without_any_parameter_takes_nothing() -> None:
    """A free-form object takes arguments; {} would be made up for it."""
    assert takes_nothing(definition("now", "Time.", schema={"type": "object", "properties": {}}))
    assert takes_nothing(definition("now", "Time.", schema={"type": "object", "additionalProperties": False}))
    assert not takes_nothing(definition("any", "Any.", schema={"type": "object", "additionalProperties": True}))
    assert not takes_nothing(definition("read", "Reads."))


@pytest.mark.parametrize(
    "text", ['{"sensor": NaN}', '{"sensor": "\\ud800"}', "[" * 100_000, '{"sensor": "a"} x', "null"]
)
def test_reply_that_only_looks_like_json_is_malformed(text: str) -> None:
    """What cannot be stored or sent on must be asked for again, not crash the run."""
    assert parse_arguments(text, definition("any", "Any.", schema={"type": "object"})) is None


@settings(deadline=None)
@given(st.text())
def test_no_reply_breaks_parsing(text: str) -> None:
    """A model may say anything at all."""
    tools = [definition("read", "Reads.")]

    parse_call(text, tools, may_answer=True)
    parse_arguments(text, tools[0])
