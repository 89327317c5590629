"""What each field of a message is, worked out once per descriptor from the options in its schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from faos.options.v1 import options_pb2 as options

OPERATIONAL = options.DATA_CLASS_OPERATIONAL
IDENTIFIER = options.DATA_CLASS_IDENTIFIER
CUSTOMER = options.DATA_CLASS_CUSTOMER
TIMES = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})  # numbers, whatever their schema
TEXT_TYPES = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES})


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How to treat one field."""

    name: str
    data_class: int  # 0: none, or one that does not fit the field's type
    descends: bool  # its messages are to be inspected too
    has_values: bool  # carries values itself, which need a class
    is_map: bool
    is_repeated: bool

    def texts(self, value: Any) -> Iterator[str | bytes]:
        """The strings and bytes that an IDENTIFIER field holds itself, map keys included."""
        if self.is_map:
            yield from (key for key in value if isinstance(key, str))
            value = () if self.descends else value.values()
        elif not self.is_repeated:
            value = (value,)
        yield from (item for item in value if isinstance(item, str | bytes))

    def messages(self, value: Any) -> Iterator[Message]:
        if self.is_map:
            yield from value.values()
        elif self.is_repeated:
            yield from value
        else:
            yield value


def rules_of(descriptor: Descriptor) -> dict[int, FieldRule]:
    """By field number."""
    return {field.number: rule_of(field) for field in descriptor.fields}


def rule_of(field: FieldDescriptor) -> FieldRule:
    entry = field.message_type
    is_map = entry is not None and bool(entry.GetOptions().map_entry)
    parts = list(entry.fields) if entry is not None and is_map else [field]
    descends = any(part.message_type is not None and part.message_type.full_name not in TIMES for part in parts)
    valued = [part for part in parts if part.message_type is None or part.message_type.full_name in TIMES]
    data_class = field.GetOptions().Extensions[options.data_class]
    return FieldRule(
        name=field.name,
        data_class=data_class if all(fits(data_class, part) for part in valued) else 0,
        descends=descends,
        has_values=bool(valued),
        is_map=is_map,
        is_repeated=field.is_repeated,
    )


def fits(data_class: int, field: FieldDescriptor) -> bool:
    """Text is never OPERATIONAL; an IDENTIFIER is always text, because only text can be looked up."""
    if data_class == CUSTOMER:
        return True
    return data_class == (IDENTIFIER if field.type in TEXT_TYPES else OPERATIONAL)
