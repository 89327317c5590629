"""faos get nodes -w: nodes as they converge."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from faos.admin.v1 import admin_pb2 as admin
from faos_cli.admin_client import AdminClient, connect
from faos_cli.context import Context
from faos_cli.errors import WATCH_LOST
from faos_cli.listings import Listing
from faos_cli.output import aligned, as_json, is_decorated, print_rich_table, print_yaml
from faos_core.errors import UnavailableError

PATIENCE_S = 60.0
RETRY_S = 0.5
SEEN = "SEEN"  # a column that moves with time alone
MIN_WIDTHS = (12, 8, 12, 12, 9, 7, 7, 4)

Key = tuple[str, str]
Show = Callable[[Iterable[admin.Node], Iterable[Key]], None]


async def watch_nodes(context: Context, listing: Listing, name: str | None, output: str) -> None:
    """Show nodes as they are, then each that changes, until cancelled. A control plane that goes away has 60 s to
    come back. Raises UnavailableError when it does not, and what it raised itself otherwise."""
    fleet = Fleet(listing, output)
    async with connect(context) as client:
        await follow(client, admin.WatchNodesRequest(tenant=context.tenant or ""), name, fleet)


async def follow(client: AdminClient, request: admin.WatchNodesRequest, name: str | None, fleet: "Fleet") -> None:
    lost_at: float | None = None
    while True:
        try:
            known: set[Key] = set()
            async for answer in client.stream(client.nodes.WatchNodes, request):
                lost_at = None
                nodes = [node for node in answer.nodes if name in (None, node.name)]
                known |= {key_of(node) for node in nodes}
                removed = {(each.tenant, each.name) for each in answer.removed}
                known -= removed
                gone = fleet.shown.keys() - known if answer.is_complete else removed
                fleet.update(nodes, gone)
        except UnavailableError as error:
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                click.echo(f"The control plane went away; waiting for it, {PATIENCE_S:.0f} s at most.", err=True)
            if now - lost_at >= PATIENCE_S or not fleet.has_shown:
                raise UnavailableError(WATCH_LOST, waited_s=round(now - lost_at), reason=error.what) from error
        await asyncio.sleep(RETRY_S)


def key_of(node: admin.Node) -> Key:
    return node.tenant, node.name


class Fleet:
    """What was shown of each node. On a terminal the table is drawn anew; in a pipe, a line follows for each change."""

    def __init__(self, listing: Listing, output: str) -> None:
        self.shown: dict[Key, tuple[str, ...]] = {}
        self.has_shown = False
        self._listing = listing
        self._output = output
        wide = listing.wide_columns if output == "wide" else ()
        self._columns: Sequence[str] = listing.columns + wide
        self._nodes: dict[Key, admin.Node] = {}

    def update(self, nodes: Sequence[admin.Node], gone: Iterable[Key]) -> None:
        """Show nodes whose row differs from what is shown of them, and those that are gone."""
        changed = [node for node in nodes if self.shown.get(key_of(node)) != self._facts(node)]
        left = [self._nodes[key] for key in list(gone) if key in self._nodes]
        self.shown |= {key_of(node): self._facts(node) for node in changed}
        self._nodes |= {key_of(node): node for node in changed}
        for node in left:
            del self.shown[key_of(node)], self._nodes[key_of(node)]
        if self._output in ("json", "yaml"):
            self._documents(changed)
        elif self._output == "name":
            for node in changed:
                click.echo(f"{self._listing.singular}/{node.name}")
        elif is_decorated():
            self._redraw()
        else:
            self._lines(changed, left)
        self.has_shown = True

    def _cells(self, node: admin.Node) -> tuple[str, ...]:
        return tuple(self._listing.cells(node)[: len(self._columns)])

    def _facts(self, node: admin.Node) -> tuple[str, ...]:
        """The row without what time alone changes."""
        return tuple(cell for column, cell in zip(self._columns, self._cells(node), strict=True) if column != SEEN)

    def _documents(self, nodes: Iterable[admin.Node]) -> None:
        """One document for each change: a line of JSON, or a stream of YAML."""
        for node in nodes:
            if self._output == "json":
                click.echo(json.dumps(as_json(node), ensure_ascii=False))
            else:
                click.echo("---")
                print_yaml(as_json(node))

    def _lines(self, changed: Sequence[admin.Node], left: Iterable[admin.Node]) -> None:
        rows: list[Sequence[str]] = [self._cells(node) for node in changed]
        rows += [(node.name, node.site, "GONE", *[""] * (len(self._columns) - 3)) for node in left]
        floor = [" " * width for width in MIN_WIDTHS] + [""] * (len(self._columns) - len(MIN_WIDTHS))
        heading = [] if self.has_shown else [self._columns]
        for line in aligned([floor, *heading, *rows])[1:]:
            click.echo(line)

    def _redraw(self) -> None:
        click.clear()
        rows: list[Any] = [self._cells(self._nodes[key]) for key in sorted(self._nodes)]
        print_rich_table(self._columns, rows)
        click.echo("Watching; Ctrl-C ends it.", err=True)
