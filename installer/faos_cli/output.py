"""What commands print: tables, JSON, YAML. Colour and boxes only on a terminal, and never under NO_COLOR."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

GOOD, BAD, BUSY = "green", "red", "yellow"
COLOURS = {
    "HEALTHY": GOOD,
    "LIVE": GOOD,
    "UP": GOOD,
    "DOWN": BAD,
    "SUCCEEDED": GOOD,
    "created": GOOD,
    "REJECTED": BAD,
    "ROLLED_BACK": BAD,
    "FAILED": BAD,
    "DISCONNECTED": BAD,
    "CUSTOMER": BAD,
    "LIMITED": BUSY,
    "RUNNING": BUSY,
    "APPLYING": BUSY,
    "SOAKING": BUSY,
    "NEVER": BUSY,
    "updated": BUSY,
    "deleted": BAD,
}
CONTROLS = re.compile("[\x7f-\x9f]")  # drive a terminal, and json leaves them as they are; only ever inside texts
UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def is_decorated(stream: Any = None) -> bool:
    """Whether colour and redrawing make sense there; standard output when not said."""
    return not os.environ.get("NO_COLOR") and (stream or sys.stdout).isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One line per row under a heading; aligned, never cut where it is piped."""
    if is_decorated():
        print_rich_table(columns, rows)
        return
    for line in aligned([columns, *rows]):
        click.echo(line)


def print_rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    headings = [Column(name, overflow="fold") for name in columns]  # nothing is cut: names are there to be copied
    table = Table(*headings, box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell), style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the columns below each other, three blanks between them."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def print_facts(facts: Mapping[str, str], *, indent: int = 0) -> None:
    """Names and values below each other; empty values are left out."""
    kept = [(name, value) for name, value in facts.items() if value]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *rest = value.splitlines() or [""]
        click.echo(f"{' ' * indent}{name.ljust(width)}   {coloured(printable(first))}")
        for line in rest:
            click.echo(f"{' ' * (indent + width)}   {printable(line)}")


def coloured(text: str) -> str:
    """The text in the colour that its meaning has; plain in a pipe."""
    colour = COLOURS.get(text)
    return click.style(text, fg=colour) if colour and is_decorated() else text


def printable(text: str) -> str:
    """Without control characters: what a model or a tool said must not drive the terminal."""
    return "".join(
        each if each.isprintable() else " " if each in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_yaml(value: Any) -> None:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # an attribute that its class leaves open
    yaml.dump(value, sys.stdout)


def as_json(message: Any) -> dict[str, Any]:
    """Proto JSON, with the fields that hold their default."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, always_print_fields_with_no_presence=True)


def enum_text(message: Any, field: str) -> str:
    """The value's name without its enum's prefix; "" when it is unspecified; the number that a newer server gave."""
    descriptor = message.DESCRIPTOR.fields_by_name[field].enum_type
    number = getattr(message, field)
    if number not in descriptor.values_by_number:
        return str(number)
    name: str = descriptor.values_by_number[number].name
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    text = name.removeprefix(prefix)
    return "" if text == "UNSPECIFIED" else text


def moment(message: Any, field: str) -> datetime | None:
    """A timestamp field as an aware time; None when it is not set."""
    return getattr(message, field).ToDatetime(UTC) if message.HasField(field) else None


def age(at: datetime | None, *, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits: 42s, 5m, 3h, 12d; "" for None."""
    if at is None:
        return ""
    seconds = max(int(((now or datetime.now(UTC)) - at).total_seconds()), 0)
    for unit, size_s in UNITS:
        if seconds >= size_s:
            return f"{seconds // size_s}{unit}"
    return f"{seconds}s"


def clock_time(at: datetime | None) -> str:
    """RFC 3339 to the second; "" for None."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def duration(seconds: float) -> str:
    """12 ms, 1.42 s, 3 min 5 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def byte_size(count: float) -> str:
    """987 B, 12.3 kB, 4.5 MB, 1.2 GB: powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def labels_text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))
