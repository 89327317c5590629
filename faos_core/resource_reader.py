"""The reader behind `resource_yaml`: one YAML file to resources, along the descriptors.

It walks the node graph and constructs no Python object on the way, so a tag runs nothing. Anchors, aliases and
merge keys are refused (what an alias expands to has no bound); a file has at most 1 MiB, a document at most 32
levels. It goes on after a mistake, so that everything that is wrong is reported at once, with its place.
"""

import io
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from faos.resource.v1.resource_pb2 import Resource
from faos_core import kinds

API_VERSION = "faos/v1"
DOCUMENT_FIELDS = ("apiVersion", "kind", "metadata", "spec")
MAX_FILE_BYTES = 1024 * 1024  # the parser needs up to 20 s for that much
MAX_DEPTH = 32
MAX_EXACT_INTEGER = 2**53 - 1  # above, two whole numbers are the same double (RFC 8259 section 6)

DECIMAL = re.compile(r"[-+]?[0-9]+")
REAL = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
TEXT_TAGS = frozenset({"str", "timestamp", "value"})  # a date is text to us
INTEGER_BITS = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}


def enum_prefix(descriptor: EnumDescriptor) -> str:
    """ "TOOL_CHOICE_" of ToolChoice: what its zero value has before UNSPECIFIED (buf lint keeps it so)."""
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file. line and column count from 1; 0 where the file as a whole is meant."""

    file: str
    line: int
    column: int
    field_path: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field_path}: {self.what}" if self.field_path else f"{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Located:
    """A resource and where it was written. line: of the document's first key, from 1."""

    resource: Resource
    file: str
    line: int
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)

    def position(self, field_path: str) -> tuple[int, int]:
        """Line and column of a field such as "spec.tools[0]", or of the nearest field around it that was written."""
        while field_path and field_path not in self.positions:
            field_path = field_path[: max(field_path.rfind("."), field_path.rfind("["), 0)]
        return self.positions.get(field_path, (self.line, 1))


@dataclass(slots=True)
class Parsed:
    """What files hold: the resources that could be read, and everything that is wrong."""

    located: list[Located] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _PlainComposer(Composer):
    """Refuses anchors and aliases where they stand."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise ComposerError(None, None, "anchors and aliases are not taken; write the value out", event.start_mark)
        return super().compose_node(parent, index)


def parse_into(parsed: Parsed, content: bytes, file: str) -> None:
    reader = _Reader(file)
    if len(content) > MAX_FILE_BYTES:
        reader.report_at(0, 0, "", f"larger than {MAX_FILE_BYTES // 1024 // 1024} MiB; split it")
    else:
        parsed.located += reader.documents(content)
    parsed.problems += sorted(reader.problems, key=lambda problem: (problem.line, problem.column))


class _Reader:
    """Reads one file; collects problems instead of stopping at the first."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.positions: dict[str, tuple[int, int]] = {}

    def report(self, node: Node, path: str, what: str) -> None:
        self.report_at(node.start_mark.line + 1, node.start_mark.column + 1, path, what)

    def report_at(self, line: int, column: int, path: str, what: str) -> None:
        self.problems.append(Problem(self.file, line, column, path, what))

    def documents(self, content: bytes) -> Iterator[Located]:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line, column = _place(content[: error.start].decode())
            self.report_at(line, column, "", "not UTF-8 text")
            return
        nodes = [node for node in self.nodes(text) if not _is_null(node)]
        if not nodes and not self.problems:
            self.report_at(0, 0, "", "the file has no resource in it")
        for node in nodes:
            yield from self.document(node)

    def nodes(self, text: str) -> Iterator[Node]:
        """Every document up to the first that is no YAML."""
        yaml = YAML(typ="safe", pure=True)
        yaml.Composer = _PlainComposer
        yaml.max_depth = MAX_DEPTH
        try:
            yield from yaml.compose_all(io.StringIO(text))
        except ReaderError as error:
            self.report_at(*_place(text[: error.position]), "", "a character that YAML does not allow")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = str(error.problem or error.context or "not YAML").partition(", if necessary")[0]
            self.report_at(mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, "", what)
        except (YAMLError, ValueError, OverflowError) as error:  # the last two: an escape beyond Unicode
            self.report_at(0, 0, "", f"not YAML: {type(error).__name__}")

    def document(self, node: Node) -> Iterator[Located]:
        before = len(self.problems)
        self.positions = {}
        fields = self.mapping(node, "", DOCUMENT_FIELDS)
        if fields is None:
            return
        self.check_api_version(fields.get("apiVersion"), node)
        resource = Resource()
        self.metadata(fields.get("metadata"), node, resource)
        self.spec(fields, node, resource)
        if len(self.problems) == before:
            yield Located(resource, self.file, node.start_mark.line + 1, self.positions)

    def check_api_version(self, value: Node | None, document: Node) -> None:
        if value is None:
            self.report(document, "apiVersion", f"missing; write 'apiVersion: {API_VERSION}'")
        elif not isinstance(value, ScalarNode) or value.value != API_VERSION:
            self.report(value, "apiVersion", f"must be {API_VERSION!r}")

    def metadata(self, value: Node | None, document: Node, resource: Resource) -> None:
        before = len(self.problems)
        if value is not None:
            self.message(value, resource.metadata, "metadata")
        reported = any(problem.field_path == "metadata.name" for problem in self.problems[before:])
        if not resource.metadata.name and not reported:
            self.report(value or document, "metadata.name", "missing; every resource has a name")

    def spec(self, fields: Mapping[str, Node], document: Node, resource: Resource) -> None:
        row = self.kind(fields.get("kind"), document)
        if row is None:
            return
        if "spec" not in fields:
            self.report(document, "spec", "missing; write 'spec: {}' for one without fields")
            return
        getattr(resource, row.field).SetInParent()
        self.message(fields["spec"], getattr(resource, row.field), "spec")

    def kind(self, value: Node | None, document: Node) -> kinds.KindRow | None:
        if value is None:
            self.report(document, "kind", f"missing; one of {', '.join(kinds.BY_NAME)}")
            return None
        name = value.value if isinstance(value, ScalarNode) else ""
        if name not in kinds.BY_NAME:
            self.report(value, "kind", f"{name[:80]!r} is no kind; " + _suggest(name, kinds.BY_NAME))
        return kinds.BY_NAME.get(name)

    # Values, along the descriptors

    def mapping(self, node: Node, path: str, known: Sequence[str] | None = None) -> dict[str, Node] | None:
        """Values by key. known: the keys that may occur, None for any. Null values count as absent when known."""
        if not isinstance(node, MappingNode):
            self.report(node, path, f"must be a mapping, not {_describe(node)}")
            return None
        values: dict[str, Node] = {}
        for key, value in node.value:
            name = self.key(key, path)
            if name is None:
                continue
            here = _join(path, name, known is None)
            if name in values:
                self.report(key, here, "written twice")
            elif known is not None and name not in known:
                self.report(key, here, "no such field; " + _suggest(name, known))
            else:
                self.positions[here] = (key.start_mark.line + 1, key.start_mark.column + 1)
                values[name] = value
        return values if known is None else {name: value for name, value in values.items() if not _is_null(value)}

    def key(self, node: Node, path: str) -> str | None:
        if isinstance(node, ScalarNode) and _tag(node) == "merge":
            self.report(node, path, "merge keys are not taken; write the values out")
            return None
        return self.text(node, path)

    def message(self, node: Node, message: Message, path: str) -> None:
        message.SetInParent()
        by_name: dict[str, Any] = {field.json_name: field for field in message.DESCRIPTOR.fields}
        for name, value in (self.mapping(node, path, tuple(by_name)) or {}).items():
            self.field(value, message, by_name[name], f"{path}.{name}")

    def field(self, node: Node, message: Message, descriptor: FieldDescriptor, path: str) -> None:
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            self.map(node, getattr(message, descriptor.name), path)
        elif descriptor.is_repeated:
            self.sequence(node, getattr(message, descriptor.name), descriptor, path)
        elif descriptor.message_type and descriptor.message_type.full_name == kinds.STRUCT:
            self.struct(node, getattr(message, descriptor.name), path)
        elif descriptor.message_type:
            self.message(node, getattr(message, descriptor.name), path)
        elif (value := self.scalar(node, descriptor, path)) is not None:
            setattr(message, descriptor.name, value)

    def map(self, node: Node, container: Any, path: str) -> None:
        """Of text to text, the only maps that the schema has."""
        for name, value in (self.mapping(node, path) or {}).items():
            text = self.text(value, _join(path, name, True))
            if text is not None:
                container[name] = text

    def sequence(self, node: Node, container: Any, descriptor: FieldDescriptor, path: str) -> None:
        if not isinstance(node, SequenceNode):
            self.report(node, path, f"must be a list, not {_describe(node)}")
            return
        for index, item in enumerate(node.value):
            here = f"{path}[{index}]"
            self.positions[here] = (item.start_mark.line + 1, item.start_mark.column + 1)
            if descriptor.message_type:
                self.message(item, container.add(), here)
            elif (value := self.scalar(item, descriptor, here)) is not None:
                container.append(value)

    def scalar(self, node: Node, descriptor: FieldDescriptor, path: str) -> Any:
        """A value for the field; None after reporting why there is none."""
        if descriptor.enum_type:
            return self.enum(node, descriptor.enum_type, path)
        if descriptor.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self.text(node, path)
        if descriptor.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            return self.real(node, path)
        return self.integer(node, INTEGER_BITS[descriptor.cpp_type], path)

    def text(self, node: Node, path: str) -> str | None:
        if isinstance(node, ScalarNode) and _tag(node) in TEXT_TAGS:
            value: str = node.value
            if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
                return value
            self.report(node, path, "text with half a surrogate pair")
            return None
        hint = f'; write it in quotes: "{node.value}"' if isinstance(node, ScalarNode) and node.value else ""
        self.report(node, path, f"must be text, not {_describe(node)}{hint}")
        return None

    def integer(self, node: Node, bits: int, path: str) -> int | None:
        if not isinstance(node, ScalarNode) or _tag(node) != "int" or not DECIMAL.fullmatch(node.value):
            self.report(node, path, f"must be a whole decimal number, not {_describe(node)}")
        elif len(node.value) > 20 or not 0 <= int(node.value) < 2**bits:
            self.report(node, path, f"must be from 0 to {2**bits - 1}")
        else:
            return int(node.value)
        return None

    def real(self, node: Node, path: str) -> float | None:
        value = self.number(node, path)
        if value is None:
            return None
        try:
            struct.pack("<f", value)
        except OverflowError:
            self.report(node, path, "too large for a number here")
            return None
        return value

    def number(self, node: Node, path: str) -> float | None:
        if not isinstance(node, ScalarNode) or _tag(node) not in ("int", "float") or not REAL.fullmatch(node.value):
            self.report(node, path, f"must be a finite decimal number, not {_describe(node)}")
            return None
        value = float(node.value)
        if not math.isfinite(value):
            self.report(node, path, "too large for a number")
            return None
        return value

    def enum(self, node: Node, descriptor: EnumDescriptor, path: str) -> int | None:
        prefix = enum_prefix(descriptor)
        numbers = {value.name: value.number for value in descriptor.values}
        numbers |= {name.removeprefix(prefix): number for name, number in numbers.items() if number}
        name = node.value if isinstance(node, ScalarNode) else ""
        if name not in numbers:
            short = tuple(name for name, number in numbers.items() if number and not name.startswith(prefix))
            self.report(node, path, f"{_describe(node)} is not one of its values; " + _suggest(name.upper(), short))
        return numbers.get(name)

    def struct(self, node: Node, target: struct_pb2.Struct, path: str) -> None:
        target.SetInParent()
        for name, value in (self.mapping(node, path) or {}).items():
            self.value(value, target.fields[name], _join(path, name, True))

    def value(self, node: Node, target: struct_pb2.Value, path: str) -> None:
        """Any JSON value."""
        if isinstance(node, MappingNode):
            self.struct(node, target.struct_value, path)
        elif isinstance(node, SequenceNode):
            target.list_value.SetInParent()
            for index, item in enumerate(node.value):
                self.value(item, target.list_value.values.add(), f"{path}[{index}]")
        else:
            self.plain_value(node, target, path)

    def plain_value(self, node: Node, target: struct_pb2.Value, path: str) -> None:
        tag = _tag(node)
        if tag == "null":
            target.null_value = struct_pb2.NULL_VALUE
        elif tag == "bool":
            target.bool_value = node.value.lower() == "true"
        elif tag in ("int", "float"):
            number = self.number(node, path)
            if number is not None and tag == "int" and abs(number) > MAX_EXACT_INTEGER:
                self.report(node, path, f"whole numbers go up to {MAX_EXACT_INTEGER}; write it as text")
            target.number_value = 0.0 if number is None else number
        else:
            target.string_value = self.text(node, path) or ""


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _tag(node: Node) -> str:
    """Last part of a standard tag, such as "int"; the tag itself when it is none of the standard's."""
    return str(node.tag or "").removeprefix("tag:yaml.org,2002:")


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and _tag(node) == "null"


def _describe(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return "nothing" if _is_null(node) else repr(node.value[:80])


def _join(path: str, name: str, is_map: bool) -> str:
    if is_map:
        return f"{path}[{name[:80]}]"
    return f"{path}.{name[:80]}" if path else name[:80]


def _suggest(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(name[:80], list(known), n=1) or [
        candidate for candidate in known if candidate.lower() == name.lower()
    ]
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
