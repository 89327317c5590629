"""JSON Schema (Draft 2020-12) of untrusted origin: one document, never a remote reference."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

REFERENCES = ("$ref", "$dynamicRef")


class BadSchemaError(ValueError):
    """The schema cannot be used: not Draft 2020-12, a reference that leaves the document, or one without target."""


def canonical(value: object) -> str:
    """Sorted, compact JSON: equal values give equal text (as RFC 8785 wants, but for its number format)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def compile_schema(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator that resolves within the document only. Raises BadSchemaError."""
    return _compiled(canonical(schema))


@lru_cache(maxsize=512)
def _compiled(text: str) -> Draft202012Validator:
    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
        _check_references(schema)
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise BadSchemaError(type(error).__name__) from error
    return Draft202012Validator(schema, registry=Registry())


def _check_references(schema: dict[str, Any]) -> None:
    resolver = Registry().with_resource("", Resource.from_contents(schema, DRAFT202012)).resolver()
    for node in _objects(schema):
        if node is not schema and isinstance(node.get("$id"), str):
            raise BadSchemaError("$id below the root")
        for reference in (node[key] for key in REFERENCES if isinstance(node.get(key), str)):
            if not reference.startswith("#"):
                raise BadSchemaError("remote reference")
            resolver.lookup(reference)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def first_violation(schema: Mapping[str, Any], value: object) -> str | None:
    """Place in the schema that the value breaks ("properties/ward/enum"), or None when it fits.

    Names the schema's place and not the value's: values are customer content.
    Raises BadSchemaError, also for a schema that refers to itself without end.
    """
    try:
        error: ValidationError | None = next(compile_schema(schema).iter_errors(value), None)
    except RecursionError as loop:
        raise BadSchemaError("endless reference") from loop
    return None if error is None else "/".join(str(part) for part in error.absolute_schema_path)
