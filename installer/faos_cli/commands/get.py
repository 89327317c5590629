"""faos get KIND [NAME]"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import output_option, with_control_plane

if TYPE_CHECKING:
    from faos_cli.context import Context
    from faos_cli.listings import Listing

TENANTLESS = ("tenants",)
OF_ANY_TENANT = ("nodes", "events", "audit")  # listed over all tenants when none is said


@click.command("get")
@click.argument("kind", shell_complete=completion.kinds)
@click.argument("name", required=False, shell_complete=completion.names)
@output_option("table", "wide", "json", "yaml", "name")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("-w", "--watch", is_flag=True, help="Then show each node that changes, until Ctrl-C.")
@with_control_plane
def get(context: "Context", kind: str, name: str | None, output: str, limit: int | None, watch: bool) -> None:
    """List what the control plane knows, or show one thing of it.

    \b
    KIND is one of nodes, sites, tenants, resources, agents, models, toolservers, knowledgebases, policies,
    revisions, join-tokens, events, audit; singular and short names (no, ts, kb, rev, jt) mean the same.

    \b
    Examples:
      faos get nodes                     with the revisions that they attempted, run and hold healthy
      faos get nodes -o json
      faos get nodes -w                  as they converge; a line for each change in a pipe
      faos get agent assistant -o yaml   as it was applied
      faos get kb
      faos get events --limit 1000       what happened at nodes, newest first; 100 where nobody says how many
      faos get audit --limit 20
    """
    import asyncio

    from faos_cli.listings import parse_target

    listing, wanted = parse_target(kind, name)
    if watch:
        from faos_cli.watch import watch_nodes

        if listing.plural != "nodes":
            raise click.UsageError("Only nodes can be watched: faos get nodes -w")
        asyncio.run(watch_nodes(context, listing, wanted, output))
        return
    items = asyncio.run(fetch(context, listing, wanted, limit or listing.most))
    show(listing, items, output, single=bool(wanted))
    if not (limit or wanted) and len(items) == listing.most > 0:
        click.echo(
            f"The newest {listing.most}; for more: faos get {listing.plural} --limit {10 * listing.most}", err=True
        )


async def fetch(context: "Context", listing: "Listing", name: str | None, limit: int) -> Sequence[Any]:
    from faos_cli.admin_client import choose_tenant, connect
    from faos_cli.listings import fetch_named

    async with connect(context) as client:
        tenant = context.tenant or ""
        if not tenant and listing.plural not in TENANTLESS and (name or listing.plural not in OF_ANY_TENANT):
            tenant = await choose_tenant(client, None)
        if name:
            return [await fetch_named(listing, client, tenant, name)]
        return await listing.fetch(client, tenant, limit)


def show(listing: "Listing", items: Sequence[Any], output: str, *, single: bool) -> None:
    from faos_cli import output as out

    match output:
        case "json":
            documents = [document(listing, item) for item in items]
            out.print_json(documents[0] if single else {"items": documents})
        case "yaml":
            show_yaml(listing, items, single=single)
        case "name":
            for item in items:
                click.echo(f"{singular_of(listing, item)}/{listing.name_of(item)}")
        case _:
            show_table(listing, items, wide=output == "wide")


def show_table(listing: "Listing", items: Sequence[Any], *, wide: bool) -> None:
    from faos_cli.output import print_table

    if not items:
        click.echo(f"There are no {listing.plural.replace('-', ' ')}. {listing.empty}", err=True)
        return
    columns = listing.columns + (listing.wide_columns if wide else ())
    print_table(columns, [listing.cells(item)[: len(columns)] for item in items])


def show_yaml(listing: "Listing", items: Sequence[Any], *, single: bool) -> None:
    """Resources as documents that `faos apply` takes; everything else as proto JSON says it."""
    from faos_cli.output import as_json, print_yaml
    from faos_core.resource_yaml import dump

    if listing.kind is not None:
        click.echo(dump([item.resource for item in items]), nl=False)
    else:
        documents = [as_json(item) for item in items]
        print_yaml(documents[0] if single else {"items": documents})


def document(listing: "Listing", item: Any) -> dict[str, Any]:
    from faos_cli.output import as_json
    from faos_core.resource_yaml import as_document

    return as_json(item) if listing.kind is None else as_document(item.resource)


def singular_of(listing: "Listing", item: Any) -> str:
    """Of the item's own kind, where the list has several."""
    from faos_core.kinds import kind_name, kind_of

    return kind_name(kind_of(item.resource)).lower() if listing.kind is not None else listing.singular
