"""What differs between two versions of a resource, field by field, for a person. Pure, and bounded.

Elements of a list are told apart by their name where each has one of its own (a word is its own name), so that one put
in at the front is one difference; otherwise by their place. Where only the order differs, the order is shown.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from faos.resource.v1.resource_pb2 import Resource
from faos_core.kinds import ends_path, spec_of

MAX_FIELDS = 200  # of one resource
MAX_VALUE_CHARACTERS = 32 * 1024
MAX_RESOURCE_CHARACTERS = 128 * 1024
MAX_ANSWER_CHARACTERS = 4 * 1024 * 1024
NAME_PATH = "metadata.name"  # the same in both
NOTHING = "{}"  # a message that is there and empty
NAME = "name"  # field by which elements of a list are told apart
ORDER = "[*]"  # behind a list's path: the names of its elements, in order


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs. None: it is absent on that side."""

    field_path: str  # as in YAML, with names for places: "spec.rules[beds].effect"
    before: str | None
    after: str | None

    @property
    def size_characters(self) -> int:
        return len(self.field_path) + len(self.before or "") + len(self.after or "")


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """The fields of one resource that differ, in the order of its schema."""

    fields: Sequence[FieldChange] = ()
    is_truncated: bool = False  # there are more, or values were cut

    @property
    def size_characters(self) -> int:
        return sum(each.size_characters for each in self.fields)


def field_changes(
    before: Resource | None, after: Resource | None, *, limit: int = MAX_RESOURCE_CHARACTERS
) -> FieldChanges:
    """What differs; None: there is no such resource. limit: characters in all, at most MAX_RESOURCE_CHARACTERS."""
    old, new = (dict(_fields_of(each)) if each else {} for each in (before, after))
    paths = [path for path in {**old, **new} if _differs(path, old.get(path), new.get(path))]
    kept: list[FieldChange] = []
    room, is_cut = min(limit, MAX_RESOURCE_CHARACTERS), False
    for path in paths[:MAX_FIELDS]:
        change = FieldChange(path, _cut(old.get(path)), _cut(new.get(path)))
        room -= change.size_characters
        if room < 0:
            return FieldChanges(tuple(kept), is_truncated=True)
        is_cut |= (change.before, change.after) != (old.get(path), new.get(path))
        kept.append(change)
    return FieldChanges(tuple(kept), is_truncated=is_cut or len(paths) > MAX_FIELDS)


def _differs(path: str, before: str | None, after: str | None) -> bool:
    """An order differs only where the elements are the same."""
    if path.endswith(ORDER) and (before is None or after is None or sorted(before) != sorted(after)):
        return False
    return before != after


def _cut(value: str | None) -> str | None:
    if value is None or len(value) <= MAX_VALUE_CHARACTERS:
        return value
    return f"{value[:MAX_VALUE_CHARACTERS]}…"


def _fields_of(resource: Resource) -> Iterator[tuple[str, str]]:
    """Path and text of each field that is set."""
    for path, text in (*_message("metadata", resource.metadata), *_message("spec", spec_of(resource))):
        if path != NAME_PATH:
            yield path, text


def _message(path: str, message: Message) -> Iterator[tuple[str, str]]:
    fields = message.ListFields()
    if not fields:
        yield path, NOTHING
    for field, value in fields:
        yield from _field(f"{path}.{field.json_name}", field, value)


def _field(path: str, field: FieldDescriptor, value: Any) -> Iterator[tuple[str, str]]:
    if field.message_type and field.message_type.GetOptions().map_entry:
        for key in sorted(value):
            yield f"{path}[{key}]", str(value[key])
    elif field.is_repeated:
        keys = _names_of(field, value)
        for index, item in enumerate(value):
            yield from _one(f"{path}[{keys[index] if keys else index}]", field, item)
        if len(keys) > 1:
            yield f"{path}{ORDER}", "\n".join(keys)
    else:
        yield from _one(path, field, value)


def _names_of(field: FieldDescriptor, items: Sequence[Any]) -> list[str]:
    """A name of its own for each element; none at all where one lacks it."""
    if field.message_type is None:
        names = [str(item) for item in items]
    elif NAME in field.message_type.fields_by_name:
        names = [str(item.name) for item in items]
    else:
        return []
    return names if all(names) and len(set(names)) == len(names) else []


def _one(path: str, field: FieldDescriptor, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Message):
        yield path, _scalar(field, value)
    elif ends_path(field):
        yield path, json.dumps(MessageToDict(value), indent=2, sort_keys=True, ensure_ascii=False)
    else:
        yield from _message(path, value)


def _scalar(field: FieldDescriptor, value: Any) -> str:
    """As YAML has it."""
    if field.enum_type is not None:
        values = field.enum_type.values_by_number
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        return values[value].name.removeprefix(prefix) if value in values else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.7g}" if isinstance(value, float) else str(value)
