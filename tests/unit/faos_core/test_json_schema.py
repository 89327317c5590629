"""Schemas of untrusted origin: nothing is fetched, nothing runs for ever, every defect is said."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

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


EVIL = r"^(a+)+$"
BURNS = "a" * 40 + "!"  # hours with backtracking


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"x": {"pattern": EVIL}}}, {"x": BURNS}),
        ({"patternProperties": {EVIL: False}}, {BURNS: 1}),
        ({"patternProperties": {EVIL: True}, "additionalProperties": False}, {BURNS: 1}),
    ],
)
def test_no_pattern_burns_a_core(schema: dict[str, Any], value: object) -> None:
    """Whoever writes a tool's schema or a policy could stop the node with three characters."""
    first_violation(schema, value)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", r"a{2000}", "\ud800"])
@pytest.mark.parametrize("place", ["pattern", "patternProperties"])
def test_pattern_that_only_backtracking_could_do_is_refused(pattern: str, place: str) -> None:
    """An author is told at once, and not by a rule that never fires."""
    schema = {"properties": {"x": {place: pattern if place == "pattern" else {pattern: {}}}}}

    assert schema_defect(schema)
    with pytest.raises(BadSchemaError):
        compile_schema(schema)


def test_text_that_is_no_unicode_is_no_way_around_a_pattern() -> None:
    """A DENY rule must not be dodged by half a character: what cannot be judged is no match and no mismatch."""
    with pytest.raises(BadSchemaError):
        first_violation({"properties": {"x": {"pattern": "secret"}}}, {"x": "secret \ud800"})


def test_unevaluated_properties_beside_patterns_are_refused() -> None:
    """The library holds those patterns against names itself, with backtracking."""
    assert schema_defect({"patternProperties": {"a": {}}, "unevaluatedProperties": False})


@given(
    st.dictionaries(st.sampled_from(["a", "ab", "b", "x1", "é"]), st.integers() | st.text(max_size=3), max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.just({"a": {"type": "integer"}}),
            "patternProperties": st.sampled_from([{"^a": {"type": "integer"}}, {"b$": {"pattern": "^[a-z]"}}]),
            "additionalProperties": st.sampled_from([True, False, {"type": "string", "pattern": "."}]),
        },
    ),
)
def test_keywords_mean_what_they_mean_in_the_library(value: dict[str, Any], schema: dict[str, Any]) -> None:
    """Ours are there for their time, not for another meaning."""
    assert (first_violation(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
@pytest.mark.parametrize("divisor", [0.5, 3])
def test_number_that_cannot_be_divided_is_answered(value: float, divisor: float) -> None:
    """A hijacked model may write 1e999 or NaN as an argument: that is refused, and does not end the run as a defect."""
    assert first_violation({"multipleOf": divisor}, value) == "multipleOf"
