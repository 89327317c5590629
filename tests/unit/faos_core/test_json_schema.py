"""Schemas of untrusted origin: nothing is fetched, nothing runs for ever, every defect is said."""

import re
from typing import Any

import pytest

from faos_core.json_schema import BadSchemaError, canonical, compile_schema, first_violation, schema_defect

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "wrong at type"),
        ({"$ref": "https://example.org/s.json"}, "leaves the document"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "leaves the document"),
        ({"$dynamicRef": "file:///etc/passwd"}, "leaves the document"),
        ({"$ref": "#/$defs/nowhere"}, "a reference to nothing"),
        ({"properties": {"a": {"$id": "https://example.org/"}}}, "changes what references mean"),
        (deep(20_000), "nested too deeply"),
    ],
)
def test_schema_that_cannot_be_used_is_refused_with_its_reason(schema: dict[str, Any], reason: str) -> None:
    """A tool server or the cloud wrote it: it must neither fetch nor crash."""
    assert re.search(reason, schema_defect(schema) or "")
    with pytest.raises(BadSchemaError, match=reason):
        compile_schema(schema)


@pytest.mark.parametrize("schema", [{"$schema": DRAFT_7, "type": "object"}, {"$id": "https://example.org/s.json"}])
def test_what_tool_servers_generate_compiles_and_what_authors_write_is_held_strictly(schema: dict[str, Any]) -> None:
    """Half of all MCP servers write such a `$schema`; an author who does believes in rules that are not applied."""
    assert schema_defect(schema)
    assert compile_schema(schema).is_valid({})


def test_violation_names_the_place_in_the_schema_and_never_the_value() -> None:
    """Values are customer content, and this goes into errors and logs."""
    schema = {"properties": {"ward": {"$ref": "#/$defs/ward"}}, "$defs": {"ward": {"enum": ["a", "b"]}}}

    assert first_violation(schema, {"ward": "a"}) is None
    assert first_violation(schema, {"ward": "secret-patient"}) == "properties/ward/enum"


def test_schema_that_refers_to_itself_without_end_is_a_bad_one() -> None:
    """It would otherwise take the node down with its stack."""
    with pytest.raises(BadSchemaError):
        first_violation({"$ref": "#"}, 1)


def test_equal_values_have_equal_text() -> None:
    """Tools are pinned by the digest of this text."""
    assert canonical({"b": [1, "ä"], "a": None}) == canonical({"a": None, "b": [1, "ä"]}) == '{"a":null,"b":[1,"ä"]}'
