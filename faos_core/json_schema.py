"""JSON Schema from outside: whether it can be used. Draft 2020-12, one document, no reference out of it."""

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCES = ("$ref", "$dynamicRef")


def struct_defect(struct: Struct) -> str | None:
    """As `schema_defect`, for a schema that travels in a proto."""
    try:
        return schema_defect(MessageToDict(struct))
    except (ValueError, RecursionError):  # not a number, infinity
        return "it holds what JSON cannot"


def schema_defect(schema: Mapping[str, Any]) -> str | None:
    """Why the schema cannot be used, in a few words that quote only its own places; None when it can."""
    if schema.get("$schema", DIALECT) != DIALECT:
        return "another dialect than Draft 2020-12"
    try:
        Draft202012Validator.check_schema(schema)
        return _reference_defect(schema)
    except SchemaError as error:
        return f"wrong at {'/'.join(str(part) for part in error.absolute_path)[:80] or 'its root'}"
    except RecursionError:
        return "nested too deeply"


def _reference_defect(schema: Mapping[str, Any]) -> str | None:
    root = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", root).resolver()
    for node in _objects(schema):
        if isinstance(node.get("$id"), str):
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
