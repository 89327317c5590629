"""The registry of kinds: one row per member of `Resource.spec`, derived from the descriptors.

A field path names a place in a resource as YAML does ("spec.tools[0]", "metadata.sites.matchLabels"). On the wire
it is numbers only: field numbers from Resource down, list indexes in between; "spec" is the number of the oneof
member. **A path ends at a map or at a google.protobuf.Struct**: their keys are text, and text does not go up.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Kind, Resource
from faos_core.errors import InvalidError, define

Specification = (
    resource_pb2.Agent | resource_pb2.Model | resource_pb2.ToolServer | resource_pb2.KnowledgeBase | resource_pb2.Policy
)

SPEC = "spec"
STRUCT = "google.protobuf.Struct"
STEP = re.compile(r"(\w+)(?:\[(.*)\])?")  # name, and an index or a map's key
DOT = re.compile(r"\.(?![^\[]*\])")  # outside brackets

KIND_UNKNOWN = define(
    "kind.unknown",
    what="{kind!r} is not a kind.",
    why="Kinds are {known}.",
    next_step="Correct the kind; 'faos apply --help' shows one of each.",
)
KIND_MISSING = define(
    "kind.missing",
    what="A resource has no spec, so it has no kind.",
    why="The kind of a resource is the member of its spec that is set.",
    next_step="Give it a spec, or update the tool that made it.",
)
FIELD_PATH_UNKNOWN = define(
    "field_path.unknown",
    what="{path!r} is no field of a {kind}.",
    why="A field path names fields of the resource's schema.",
    next_step="Use a path such as 'spec.tools[0]'.",
)


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind, under each of its names."""

    kind: Kind.ValueType
    name: str  # as in YAML: "ToolServer"
    field: str  # member of the oneof: "tool_server"
    number: int  # of that member
    spec: type[Message]


def _row(field: FieldDescriptor) -> KindRow:
    name = field.message_type.name if field.message_type else field.name
    spec: type[Message] = getattr(resource_pb2, name)
    return KindRow(Kind.Value(f"KIND_{field.name.upper()}"), name, field.name, field.number, spec)


def _rows() -> Iterator[KindRow]:
    return (_row(field) for field in Resource.DESCRIPTOR.oneofs_by_name[SPEC].fields)


BY_KIND: Mapping[Kind.ValueType, KindRow] = MappingProxyType({row.kind: row for row in _rows()})
BY_NAME: Mapping[str, KindRow] = MappingProxyType({row.name: row for row in _rows()})
BY_FIELD: Mapping[str, KindRow] = MappingProxyType({row.field: row for row in _rows()})


def kind_of(resource: Resource) -> Kind.ValueType:
    """KIND_UNSPECIFIED when no spec is set, which is also what a kind newer than this code looks like."""
    field = resource.WhichOneof("spec")
    return BY_FIELD[field].kind if field else resource_pb2.KIND_UNSPECIFIED


def spec_of(resource: Resource) -> Specification:
    """The spec that is set. Raises InvalidError when none is."""
    field = resource.WhichOneof("spec")
    if field is None:
        raise InvalidError(KIND_MISSING)
    spec: Specification = getattr(resource, field)
    return spec


def kind_name(kind: Kind.ValueType) -> str:
    """As in YAML; "Resource" for a kind that this code does not know, so that a message can always be made."""
    return BY_KIND[kind].name if kind in BY_KIND else "Resource"


def kind_named(name: str) -> Kind.ValueType:
    """Inverse of `kind_name`. Raises InvalidError for any other name."""
    if name not in BY_NAME:
        raise InvalidError(KIND_UNKNOWN, kind=name[:80], known=", ".join(BY_NAME))
    return BY_NAME[name].kind


def ends_path(field: FieldDescriptor) -> bool:
    """Whether a path stops at this field: scalars, maps and Struct."""
    message = field.message_type
    return message is None or message.GetOptions().map_entry or message.full_name == STRUCT


def field_path_numbers(path: str, resource: Resource) -> list[int]:
    """Numbers of a path such as "spec.tools[0]"; what stands behind a map or a Struct is dropped.

    Raises InvalidError for a path that the schema of the resource's kind does not have.
    """
    kind = kind_of(resource)
    numbers: list[int] = []
    message: Descriptor | None = Resource.DESCRIPTOR
    for name, index in _steps(path, kind):
        field = _field(message, name) if message else None
        if field is None or not _may_index(field, index):
            raise InvalidError(FIELD_PATH_UNKNOWN, path=path[:80], kind=kind_name(kind))
        numbers.append(field.number)
        if ends_path(field) and field.message_type:
            break
        numbers += [int(index)] if index else []
        message = field.message_type
    return numbers


def _steps(path: str, kind: Kind.ValueType) -> Iterator[tuple[str, str]]:
    """Each name with what stands in brackets behind it. "spec" becomes the member of the oneof."""
    for part in DOT.split(path) if path else ():
        match = STEP.fullmatch(part)
        name, index = (match[1], match[2] or "") if match else (part, "")
        yield (BY_KIND[kind].field if name == SPEC and kind in BY_KIND else name), index


def _may_index(field: FieldDescriptor, index: str) -> bool:
    keyed = ends_path(field) and field.message_type is not None
    return not index or keyed or (field.is_repeated and _is_index(index))


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _field(message: Descriptor, name: str) -> FieldDescriptor | None:
    by_name: FieldDescriptor | None = message.fields_by_name.get(name)
    return by_name or message.fields_by_camelcase_name.get(name)


def field_path_names(numbers: Sequence[int], kind: Kind.ValueType) -> str:
    """Inverse of `field_path_numbers`: "spec.tools[0]" of a resource of this kind; "" for no numbers.

    Never raises, because the numbers come from a node: one that the schema lacks is written "#7".
    """
    names = _names(iter(numbers), kind)
    return "".join(names).removeprefix(".")


def _names(numbers: Iterator[int], kind: Kind.ValueType) -> Iterator[str]:
    message: Descriptor | None = Resource.DESCRIPTOR
    for number in numbers:
        field = message.fields_by_number.get(number) if message else None
        if field is None or (_is_kind(field) and BY_FIELD[field.name].kind != kind):
            yield f".#{number}"
            message = None
            continue
        yield ".spec" if _is_kind(field) else f".{field.camelcase_name}"
        if field.is_repeated and not _is_map(field) and (index := next(numbers, None)) is not None:
            yield f"[{index}]"
        message = None if ends_path(field) else field.message_type


def _is_kind(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None and field.containing_oneof.name == SPEC


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
