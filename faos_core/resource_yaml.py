"""Resources as people write them: YAML 1.2 to protos and back.

    apiVersion: faos/v1
    kind: Agent
    metadata: {name: nurse, labels: {team: ward}, sites: {matchLabels: {region: north}}}
    spec: {model: small, toolChoice: ROUTED}

Fields are the lowerCamelCase names of proto JSON; enum values go with or without their prefix; null means absent.
In a field path, the keys that an author chose stand in brackets: "metadata.labels[team]".
"""

import json
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from faos.resource.v1.resource_pb2 import Resource
from faos_core import kinds
from faos_core.errors import InvalidError, define
from faos_core.resource_reader import (
    API_VERSION,
    MAX_EXACT_INTEGER,
    MAX_FILE_BYTES,
    Located,
    Parsed,
    Problem,
    enum_prefix,
    parse_into,
)

__all__ = ["Located", "Problem", "ResourceFilesError", "as_document", "dump", "load", "loads"]

SUFFIXES = frozenset({".yaml", ".yml"})
STANDARD_INPUT = "-"
BLOCK = re.compile(r"(?:[!-~]([ -~]*[!-~])?\n)+(?:[!-~]([ -~]*[!-~])?)?")  # multi-line text that a block shows as is
PLAIN = re.compile(r"[A-Za-z]([-A-Za-z0-9_./ ]*[-A-Za-z0-9_./])?")
WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})  # not text to YAML 1.2 or 1.1
LONGEST_SIMPLE_KEY = 1000  # YAML 1.2 section 7.4.3: at most 1024 characters
# What YAML 1.2 section 5.1 wants escaped, and line ends that a reader folds.
UNSHOWN = re.compile(
    r"[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)  # YAML 1.2 §5.1

FILES_INVALID = define(
    "resource_files.invalid",
    what="{count} thing(s) are wrong in the resource files. The first: {first}",
    why="Resource files must be right as a whole before anything is sent.",
    next_step="Correct the places listed, then run the command again.",
)


class ResourceFilesError(InvalidError):
    """The files are wrong in one or more places; `problems` has them all, in order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(FILES_INVALID, count=len(problems), first=problems[0])
        self.problems = tuple(problems)


def load(sources: Sequence[str | Path], *, stdin: BinaryIO | None = None) -> list[Located]:
    """Resources of files, of all *.yaml and *.yml below folders, and of standard input for "-".

    Blocking. Raises ResourceFilesError, also for sources that do not exist or hold no resource.
    """
    parsed = Parsed()
    for source in sources:
        _read_source(source, stdin, parsed)
    parsed.problems += _duplicates(parsed.located)
    if parsed.problems:
        raise ResourceFilesError(parsed.problems)
    return parsed.located


def loads(text: bytes | str, *, file: str = "<text>") -> list[Located]:
    """Resources of one YAML text. Raises ResourceFilesError."""
    parsed = Parsed()
    parse_into(parsed, text.encode() if isinstance(text, str) else text, file)
    parsed.problems += _duplicates(parsed.located)
    if parsed.problems:
        raise ResourceFilesError(parsed.problems)
    return parsed.located


def _read_source(source: str | Path, stdin: BinaryIO | None, parsed: Parsed) -> None:
    if str(source) == STANDARD_INPUT:
        parse_into(parsed, (stdin or sys.stdin.buffer).read(MAX_FILE_BYTES + 1), "<stdin>")
        return
    path = Path(source)
    before = len(parsed.problems)
    files = _files(path, parsed) if path.is_dir() else [path]
    if not files and len(parsed.problems) == before:
        parsed.problems.append(Problem(str(path), 0, 0, "", "the folder has no .yaml or .yml file"))
    for file in files:
        _read_file(file, parsed)


def _files(folder: Path, parsed: Parsed) -> list[Path]:
    """YAML files below a folder in a stable order; hidden ones, and what is in hidden folders, are left alone.

    A folder that cannot be read is a problem: what is in it must not count as gone, for `apply --prune` would
    delete it.
    """

    def unread(error: OSError) -> None:
        reason = (error.strerror or "cannot be read").lower()
        parsed.problems.append(Problem(str(error.filename), 0, 0, "", f"the folder cannot be read: {reason}"))

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unread):
        folders[:] = (name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += (path for path in paths if path.suffix in SUFFIXES and path.is_file())
    return sorted(found)


def _read_file(path: Path, parsed: Parsed) -> None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        parsed.problems.append(Problem(str(path), 0, 0, "", f"the file cannot be read: {reason}"))
        return
    parse_into(parsed, content, str(path))


def _duplicates(located: Sequence[Located]) -> Iterator[Problem]:
    first: dict[tuple[int, str], Located] = {}
    for item in located:
        key = (kinds.kind_of(item.resource), item.resource.metadata.name)
        before = first.setdefault(key, item)
        if before is not item:
            kind = kinds.kind_name(kinds.kind_of(item.resource))
            what = f"{kind} {key[1]!r} was declared before, at {before.file}:{before.line}"
            yield Problem(item.file, *item.position("metadata.name"), "metadata.name", what)


def dump(resources: Sequence[Resource]) -> str:
    """YAML of resources, one document each; `loads` gives the same back.

    Written here and not by ruamel.yaml, whose emitter lets U+0085 and its like through, which are folded when read.
    Raises InvalidError for a resource without spec.
    """
    return "---\n".join("\n".join(_block(as_document(resource))) + "\n" for resource in resources)


def _block(value: Any) -> Iterator[str]:
    """Lines of a mapping or a list that has items."""
    is_map = isinstance(value, dict)
    for key, item in value.items() if is_map else ((None, item) for item in value):
        head = "-" if key is None else f"{_text(key)}:"
        if len(head) > LONGEST_SIMPLE_KEY:
            yield f"? {head[:-1]}"
            head = ":"
        if isinstance(item, dict | list) and item:
            yield from _nested(head, item)
        elif isinstance(item, str) and head != "-" and BLOCK.fullmatch(item):
            yield f"{head} |" if item.endswith("\n") else f"{head} |-"
            yield from (f"  {line}" for line in item.splitlines())
        else:
            yield f"{head} {_flow(item)}"


def _nested(head: str, item: Any) -> Iterator[str]:
    lines = [f"  {line}" for line in _block(item)]
    if head == "-":
        lines[0] = f"- {lines[0].lstrip()}"
    else:
        yield head
    yield from lines


def _flow(value: Any) -> str:
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """Plain where nothing else can be read in it, else in double quotes."""
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return UNSHOWN.sub(lambda match: f"\\U{ord(match[0]):08x}", json.dumps(value, ensure_ascii=False))


def as_document(resource: Resource) -> dict[str, Any]:
    """The document that YAML and `-o json` show."""
    spec = _plain(kinds.spec_of(resource))
    kind = kinds.kind_name(kinds.kind_of(resource))
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": _plain(resource.metadata), "spec": spec}


def _plain(message: Message) -> dict[str, Any]:
    return {field.json_name: _plain_field(field, value) for field, value in message.ListFields()}


def _plain_field(descriptor: FieldDescriptor, value: Any) -> Any:
    if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
        return {name: _plain_scalar(descriptor, value[name]) for name in sorted(value)}
    if descriptor.is_repeated:
        return [_plain_scalar(descriptor, item) for item in value]
    return _plain_scalar(descriptor, value)


def _plain_scalar(descriptor: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, struct_pb2.Struct):
        return {name: _plain_value(value.fields[name]) for name in sorted(value.fields)}
    if isinstance(value, Message):
        return _plain(value)
    if descriptor.enum_type and value in descriptor.enum_type.values_by_number:
        name: str = descriptor.enum_type.values_by_number[value].name
        return name.removeprefix(enum_prefix(descriptor.enum_type))
    if isinstance(value, float):
        return _shortest(value)
    return value


def _plain_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain_value(value.struct_value.fields[name]) for name in sorted(value.struct_value.fields)}
    if kind == "list_value":
        return [_plain_value(item) for item in value.list_value.values]
    if kind in ("string_value", "bool_value"):
        return getattr(value, kind)
    return _plain_number(value.number_value) if kind == "number_value" else None


def _plain_number(number: float) -> int | float:
    """Whole where that says the same; -0.0 and what is beyond exact whole numbers stay as they are."""
    whole = number.is_integer() and abs(number) <= MAX_EXACT_INTEGER and str(number) != "-0.0"
    return int(number) if whole else number


def _shortest(value: float) -> float:
    """The shortest decimal that is the same 32-bit float: 0.7, not 0.699999988079071."""
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next(short for short in candidates if struct.pack("<f", short) == struct.pack("<f", value))
