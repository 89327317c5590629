"""faos ledger show · faos ledger verify"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from data_plane.egress.interfaces import Leaf
    from faos_cli.context import Context

LEDGER_FOLDER = "ledger"
DEFAULT_LIMIT = 50


class Witness(click.ParamType):  # type: ignore[type-arg]  # generic in its newest version only
    """SIZE:ROOT, a tree head seen earlier."""

    name = "SIZE:ROOT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,18}):([0-9a-fA-F]{64})", value)
        if match is None:
            self.fail("write SIZE:ROOT, the root as 64 hexadecimal digits.", param, ctx)
        return int(match[1]), match[2].lower()


@click.group("ledger")
def ledger() -> None:
    """What left this site: every message that the node sent, as it was sent. Works with the node stopped too."""


@ledger.command("show")
@click.option(
    "--limit", type=click.IntRange(min=0), default=DEFAULT_LIMIT, help="The last so many; 0: all.  [default: 50]"
)
@click.option("--body", "index", type=click.IntRange(min=0), metavar="N", help="Message N, decoded.")
@output_option("table", "json")
@with_node
def show(context: "Context", limit: int, index: int | None, output: str) -> None:
    """Show what left: door, method, message, bytes, and how many fields of which data class.

    \b
    Examples:
      faos ledger show
      faos ledger show --body 3          message 3 as JSON, decoded from the very bytes that were sent
      faos ledger show --limit 0 -o json
    """
    folder = ledger_of(context)
    if index is not None:
        show_body(folder, index)
    else:
        show_leaves(folder, limit, output)


@ledger.command("verify")
@click.option("--witness", type=Witness(), help="A head seen earlier: what the control plane holds, for instance.")
@output_option("text", "json")
@with_node
@click.pass_context
def verify(ctx: click.Context, context: "Context", witness: tuple[int, str] | None, output: str) -> None:
    """Check every record and compute the Merkle tree head anew; exit code 1 when it does not hold.

    The same check without this software: data_plane/egress/ledger_verifier.py is one file that needs Python only.

    \b
    Examples:
      faos ledger verify
      faos ledger verify --data /var/lib/faos/node
      faos ledger verify --witness 42:9f3c…     as `faos describe node NAME` shows the head
    """
    from dataclasses import asdict

    from data_plane.egress.ledger_verifier import as_text
    from data_plane.egress.ledger_verifier import verify as check
    from faos_cli.output import print_json

    report = check(ledger_of(context), witness=witness)
    if output == "json":
        print_json(asdict(report))
    else:
        click.echo(as_text(report))
    ctx.exit(0 if report.ok else 1)


def ledger_of(context: "Context") -> Path:
    """Raises NotFoundError when there is none."""
    from faos_cli.errors import LEDGER_MISSING
    from faos_core.errors import NotFoundError

    folder = context.require_node() / LEDGER_FOLDER
    if not folder.is_dir():
        raise NotFoundError(LEDGER_MISSING, folder=folder)
    return folder


def show_leaves(folder: Path, limit: int, output: str) -> None:
    from collections import deque

    from data_plane.egress.reader import read_leaves
    from faos_cli.output import print_json, print_table

    leaves = deque(read_leaves(folder), maxlen=limit or None)
    if output == "json":
        print_json({"items": [leaf_document(leaf) for leaf in leaves]})
        return
    if not leaves:
        click.echo("Nothing has left this site yet.", err=True)
        return
    print_table(
        ("N", "AT", "DOOR", "METHOD", "MESSAGE", "BYTES", "FIELDS BY CLASS"), [leaf_cells(leaf) for leaf in leaves]
    )
    tell_summary(folder, shown=len(leaves))


def leaf_cells(leaf: "Leaf") -> tuple[str, ...]:
    from faos_cli.output import clock_time

    classes = " ".join(f"{name.lower()}:{count}" for name, count in sorted(leaf.fields_by_class.items())) or "none"
    method, message = leaf.method.rsplit("/", 1)[-1], leaf.message.rsplit(".", 1)[-1]
    return (str(leaf.index), clock_time(leaf.at), leaf.door, method, message, str(leaf.size_bytes), classes)


def tell_summary(folder: Path, *, shown: int) -> None:
    from data_plane.egress.reader import summarise

    summary = summarise(folder)
    parts = [f"{name} {tally.messages} ({tally.size_bytes} bytes)" for name, tally in summary.by_class.items()]
    total = f"{summary.total.messages} messages, {summary.total.size_bytes} bytes"
    click.echo(f"{shown} shown of {total}. By highest class: {', '.join(parts)}.", err=True)


def leaf_document(leaf: "Leaf") -> dict[str, Any]:
    return {
        "index": leaf.index,
        "at": leaf.at.isoformat(),
        "door": leaf.door,
        "destination": leaf.destination,
        "method": leaf.method,
        "message": leaf.message,
        "sizeBytes": leaf.size_bytes,
        "fieldsByClass": leaf.fields_by_class,
        "bodySha256": leaf.body_sha256.hex(),
    }


def show_body(folder: Path, index: int) -> None:
    """One message with what its bytes say. Raises NotFoundError when there is no such message, or no body of it."""
    from data_plane.egress.reader import read_leaves
    from faos_cli.errors import LEDGER_LEAF_MISSING
    from faos_cli.output import print_json
    from faos_core.errors import NotFoundError

    leaf = next((each for each in read_leaves(folder) if each.index == index), None)
    if leaf is None:
        raise NotFoundError(LEDGER_LEAF_MISSING, index=index, reason="It ends before that number.")
    if leaf.body is None:
        raise NotFoundError(LEDGER_LEAF_MISSING, index=index, reason="Only its size and SHA-256 are kept.")
    print_json(leaf_document(leaf) | {"body": decoded(leaf.message, leaf.body)})


def decoded(message: str, body: bytes) -> Any:
    """Proto JSON of the bytes; hexadecimal where this version does not know the message."""
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    from faos.tunnel.v1 import tunnel_pb2  # noqa: F401  # registers its messages

    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(message)
        return MessageToDict(message_factory.GetMessageClass(descriptor).FromString(body))
    except (KeyError, DecodeError):
        return {"hexadecimal": body.hex()}
