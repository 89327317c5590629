"""JSON Schema of untrusted origin: Draft 2020-12, one document, no reference out of it."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from faos_core.patterns import BadPatternError, compiled, found_in

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCES = ("$ref", "$dynamicRef")
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # made once, for many


Found = Iterator[ValidationError]


class BadSchemaError(ValueError):
    """The schema cannot be used; says why in a few words that quote only its own places."""


def struct_defect(struct: Struct) -> str | None:
    """As `schema_defect`, for a schema that travels in a proto."""
    try:
        return schema_defect(MessageToDict(struct))
    except (ValueError, RecursionError):  # not a number, infinity
        return "it holds what JSON cannot"


def schema_defect(schema: Mapping[str, Any]) -> str | None:
    """Why a schema that one of our users wrote cannot be used, in a few words; None when it can.

    Stricter than `compile_schema`, which also takes the `$schema` and the root's `$id` that tool servers generate.
    """
    if schema.get("$schema", DIALECT) != DIALECT:
        return "another dialect than Draft 2020-12"
    return _defect(schema, id_allowed=False)


def compile_schema(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator that resolves within the document only. Raises BadSchemaError."""
    try:
        return _compiled(canonical(schema))
    except RecursionError as error:
        raise BadSchemaError("nested too deeply") from error


@lru_cache(maxsize=512)
def _compiled(text: str) -> Draft202012Validator:
    schema = json.loads(text)
    if reason := _defect(schema, id_allowed=True):
        raise BadSchemaError(reason)
    return LinearValidator(schema, registry=Registry())


def first_violation(schema: Mapping[str, Any], value: object) -> str | None:
    """Place in the schema that the value breaks ("properties/ward/enum"), or None when it fits.

    Names the schema's place and not the value's: values are customer content.
    Raises BadSchemaError, also for a schema that refers to itself without end.
    """
    try:
        error: ValidationError | None = next(compile_schema(schema).iter_errors(value), None)
    except RecursionError as loop:
        raise BadSchemaError("endless reference") from loop
    except BadPatternError as error:
        raise BadSchemaError("a pattern that cannot be held against this text") from error
    return None if error is None else "/".join(str(part) for part in error.absolute_schema_path)


def canonical(value: object) -> str:
    """Sorted, compact JSON: equal values give equal text (as RFC 8785 wants, but for its number format)."""
    return CANONICAL.encode(value)


def _defect(schema: Mapping[str, Any], *, id_allowed: bool) -> str | None:
    """id_allowed: the root may name itself; below it, `$id` changes what references mean."""
    try:
        Draft202012Validator.check_schema(schema)
        return _reference_defect(schema, id_allowed=id_allowed) or _pattern_defect(schema)
    except SchemaError as error:
        return f"wrong at {'/'.join(str(part) for part in error.absolute_path)[:80] or 'its root'}"
    except RecursionError:
        return "nested too deeply"


def _reference_defect(schema: Mapping[str, Any], *, id_allowed: bool) -> str | None:
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for node in _objects(schema):
        if isinstance(node.get("$id"), str) and not (id_allowed and node is schema):
            return "$id, which changes what references mean"
        for reference in (node[key] for key in REFERENCES if isinstance(node.get(key), str)):
            if not reference.startswith("#"):
                return "a reference that leaves the document"
            try:
                resolver.lookup(reference)
            except Unresolvable:
                return f"a reference to nothing, {reference[:80]!r}"
    return None


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _pattern_defect(schema: Mapping[str, Any]) -> str | None:
    """Patterns are held to what linear time can do: look-around and references back are not among it."""
    keywords = {keyword for node in _objects(schema) for keyword in node}
    if {"patternProperties", "unevaluatedProperties"} <= keywords:
        return "unevaluatedProperties beside patternProperties"
    for node in _objects(schema):
        for pattern in _patterns(node):
            try:
                compiled(pattern)
            except BadPatternError:
                return f"a pattern beyond RE2, {pattern[:80]!r}"
    return None


def _patterns(node: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(node.get("pattern"), str):
        yield node["pattern"]
    if isinstance(node.get("patternProperties"), Mapping):
        yield from node["patternProperties"]


# The keywords that hold a pattern against a text. The library's own do it with backtracking.


def _pattern(validator: Any, pattern: str, value: object, _schema: object) -> Found:
    if validator.is_type(value, "string") and not found_in(pattern, cast(str, value)):
        yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: object, _schema: object) -> Found:
    if isinstance(value, Mapping):
        for pattern, subschema in patterns.items():
            for name in value:
                if found_in(pattern, name):
                    yield from validator.descend(value[name], subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, value: object, schema: Mapping[str, Any]) -> Found:
    if not isinstance(value, Mapping):
        return
    for name in _additional(value, schema):
        if allowed is False:
            yield ValidationError("is not expected")
        elif allowed is not True:
            yield from validator.descend(value[name], allowed, path=name)


def _additional(value: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    return (name for name in value if name not in named and not any(found_in(each, name) for each in patterns))


def _multiple_of(validator: Any, divisor: float, value: object, schema: object) -> Found:
    """As the library's, which raises for infinity, for what is not a number, and for what no float can hold: parsers of
    JSON take all three."""
    try:
        yield from Draft202012Validator.VALIDATORS["multipleOf"](validator, divisor, value, schema)
    except (OverflowError, ValueError):
        yield ValidationError("is not known to be a multiple")


LinearValidator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]  # the library's, without types
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "multipleOf": _multiple_of,
    },
)
