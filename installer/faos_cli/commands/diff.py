"""faos diff -f DIR · faos diff --node NAME"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from faos_cli.failures import failing_with
from faos_cli.options import set_options, with_control_plane

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos.resource.v1.resource_pb2 import ManifestEntry
    from faos_cli.admin_client import AdminClient
    from faos_cli.context import Context

SAME, DIFFERENT, TROUBLE = 0, 1, 2
NOWHERE = "/dev/null"
COLOURS = {"---": None, "+++": None, "@@ ": "cyan", "-": "red", "+": "green"}


class Comparison(click.Command):
    """A command whose exit code 1 means that something differs, so its errors are 2."""

    def invoke(self, ctx: click.Context) -> Any:
        with failing_with(TROUBLE):
            return super().invoke(ctx)


@click.command("diff", cls=Comparison)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE|DIR|-", help="As often as wanted.")
@click.option("--node", metavar="NAME", help="What this node runs against what it should.")
@set_options
@with_control_plane
def diff(context: "Context", files: tuple[str, ...], node: str | None, apply_set: str, prune: bool) -> None:
    """What an apply of these files would change, field by field; nothing is stored.

    With --node, what the node runs against what is wanted of it: the resources whose content differs.

    \b
    Exit codes, as those of kubectl diff: 0 nothing differs, 1 something does, 2 it could not be found out.
    \b
    Examples:
      faos diff -f resources/
      faos diff -f resources/ --prune --set ward     what an apply with --prune would delete, too
      faos diff --node n-4rzkx
    """
    import asyncio

    if bool(files) == bool(node):
        raise click.UsageError("Say what to compare: -f FILE, or --node NAME")
    differs = asyncio.run(diff_node(context, node) if node else diff_files(context, files, apply_set, prune))
    raise click.exceptions.Exit(DIFFERENT if differs else SAME)


async def diff_files(context: "Context", files: tuple[str, ...], apply_set: str, prune: bool) -> bool:
    from faos_cli.admin_client import apply_resources, choose_tenant, connect
    from faos_cli.commands.apply import require_set
    from faos_core.resource_yaml import load

    require_set(apply_set, prune=prune)
    located = load(files)
    async with connect(context) as client:
        tenant = await choose_tenant(client, context.tenant)
        asked = await apply_resources(client, tenant, located, validate_only=True, apply_set=apply_set, prune=prune)
    lines = [line for change in asked.changes for line in lines_of(change, asked.revision)]
    for line in lines:
        click.echo(coloured_line(line))
    return bool(lines)


def lines_of(change: "admin.ResourceChange", revision: int, after: str = "files") -> Iterator[str]:
    """A unified diff of one resource, with a hunk for each field; nothing for one that stays. after: where it comes
    from."""
    from faos_cli.output import enum_text, printable
    from faos_core.kinds import kind_name

    word = enum_text(change, "change")
    if word == "UNCHANGED":
        return
    name = printable(f"{kind_name(change.kind).lower()}/{change.name}")
    yield f"--- {NOWHERE if word == 'CREATED' else f'{name} (revision {revision})'}"
    yield f"+++ {NOWHERE if word == 'DELETED' else f'{name} ({after})'}"
    for field in change.fields:
        yield f"@@ {printable(field.field_path)} @@"
        yield from hunk(text_of(field, "before"), text_of(field, "after"))
    if change.fields_truncated:
        yield "@@ more differs than is shown here @@"


def text_of(field: "admin.FieldChange", side: str) -> Sequence[str]:
    """Lines of a value; none where it is absent."""
    if not field.HasField(side):  # type: ignore[arg-type]  # "before" or "after"
        return []
    text: str = getattr(field, side)
    return text.split("\n")


def hunk(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """Lines that go and come, and those around them."""
    from difflib import unified_diff
    from itertools import islice

    from faos_cli.output import printable

    head_and_lines = unified_diff(before, after, lineterm="")
    lines = islice(head_and_lines, 2, None)  # by place: a line that goes may begin with "-- ", and is to be seen
    return (f"{line[0]}{printable(line[1:])}" for line in lines if not line.startswith("@@ "))


def coloured_line(line: str) -> str:
    from faos_cli.output import is_decorated

    if not is_decorated():
        return line
    colour = next((colour for start, colour in COLOURS.items() if line.startswith(start)), None)
    return click.style(line, fg=colour, bold=line.startswith(("---", "+++")))


async def diff_node(context: "Context", name: str) -> bool:
    """Shows what the node runs against what it should; whether the content differs."""
    from faos_cli.admin_client import choose_tenant, connect, get_node

    async with connect(context) as client:
        tenant = await choose_tenant(client, context.tenant)
        node = (await get_node(client, tenant, name)).node
        running = await selected(client, tenant, node, node.config.running_revision)
        desired = await selected(client, tenant, node, node.desired_revision)
    rows = [row_of(key, running.get(key), desired.get(key)) for key in sorted({*running, *desired})]
    rows = [row for row in rows if row[1] != row[2]]
    tell_node(node, rows)
    return bool(rows)


async def selected(
    client: "AdminClient", tenant: str, node: "admin.Node", revision: int
) -> "dict[tuple[int, str], bytes]":
    """Digest by kind and name of what a revision wants of the node; nothing for revision 0."""
    from faos_cli.admin_client import get_revision

    if not revision:
        return {}
    answer = await get_revision(client, tenant, revision, with_entries=True)
    return {(int(it.kind), it.name): it.sha256 for it in answer.entries if concerns(it, node)}


def concerns(entry: "ManifestEntry", node: "admin.Node") -> bool:
    return all(node.labels.get(key) == value for key, value in entry.sites.match_labels.items())


def row_of(key: tuple[int, str], running: bytes | None, desired: bytes | None) -> tuple[str, str, str]:
    from faos.resource.v1.resource_pb2 import Kind
    from faos_core.kinds import kind_name

    kind, name = key
    digests = (digest.hex()[:16] if digest else "none" for digest in (running, desired))
    return (f"{kind_name(Kind.ValueType(kind)).lower()}/{name}", *digests)  # type: ignore[return-value]  # two digests


def tell_node(node: "admin.Node", rows: Sequence[tuple[str, str, str]]) -> None:
    from faos_cli.commands.describe import revision_text
    from faos_cli.output import enum_text, print_table

    config = node.config
    click.echo(
        f"{node.site}/{node.name}: runs {revision_text(config.running_revision)},"
        f" wanted {revision_text(node.desired_revision)};"
        f" attempted {revision_text(config.attempted_revision)} {enum_text(config, 'state')}".rstrip(),
        err=True,
    )
    if rows:
        print_table(("RESOURCE", "RUNNING", "DESIRED"), rows)
    else:
        click.echo("The node runs what is wanted of it.", err=True)
