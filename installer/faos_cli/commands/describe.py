"""faos describe KIND NAME"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import output_option, with_control_plane

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.context import Context
    from faos_cli.listings import Listing


@click.command("describe")
@click.argument("kind", shell_complete=completion.described_kinds)
@click.argument("name", required=False, shell_complete=completion.names)
@output_option("text", "json")
@with_control_plane
def describe(context: "Context", kind: str, name: str | None, output: str) -> None:
    """One thing in full: a node, a revision, or a resource.

    What a node last attempted, what it runs and what it holds healthy are three facts and are shown as three; a
    refusal comes with what it means and what to do next.

    \b
    Examples:
      faos describe node NAME
      faos describe revision 3
      faos describe agent assistant
      faos describe node NAME -o json    with its history, for scripts
    """
    import asyncio

    from faos_cli.listings import parse_target

    listing, wanted = parse_target(kind, name)
    if not wanted:
        raise click.UsageError(f"Say which: faos describe {listing.singular} NAME")
    found = asyncio.run(fetch(context, listing, wanted))
    if output == "json":
        show_json(listing, found)
    elif listing.plural == "nodes":
        show_node(found)
    elif listing.plural == "revisions":
        show_revision(found)
    else:
        show_thing(listing, found)


async def fetch(context: "Context", listing: "Listing", name: str) -> Any:
    """Of a node and a revision the whole answer; of anything else, what `faos get` lists."""
    from faos_cli import admin_client
    from faos_cli.listings import fetch_named, revision_number

    async with admin_client.connect(context) as client:
        tenant = "" if listing.plural == "tenants" else await admin_client.choose_tenant(client, context.tenant)
        if listing.plural == "nodes":
            return await admin_client.get_node(client, tenant, name)
        if listing.plural == "revisions":
            return await admin_client.get_revision(client, tenant, revision_number(name))
        return await fetch_named(listing, client, tenant, name)


def show_json(listing: "Listing", found: Any) -> None:
    from faos_cli.commands.get import document
    from faos_cli.output import as_json, print_json

    print_json(as_json(found) if listing.plural in ("nodes", "revisions") else document(listing, found))


def show_node(answer: "admin.GetNodeResponse") -> None:
    from faos_cli.output import age, clock_time, enum_text, labels_text, moment, print_facts

    node = answer.node
    seen = age(moment(node, "last_seen_at"))
    print_facts(
        {
            "node": node.name,
            "site": f"{node.tenant}/{node.site}",
            "identity": node.spiffe_id,
            "fingerprint": " ".join(node.fingerprint_words),
            "link": enum_text(node, "liveness"),
            "standing": " · ".join(filter(None, (enum_text(node, "standing"), node.standing_reason))),
            "alarm": node.alarm,
            "meaning": node.alarm_explanation,
            "seen": f"{seen} ago" if seen else "never",
            "version": node.version,
            "labels": labels_text(node.labels),
            "enrolled": clock_time(moment(node, "enrolled_at")),
            "certificate until": clock_time(moment(node, "certificate_expires_at")),
            "ledger": f"{node.ledger_size} messages, tree head {node.ledger_root_sha256.hex()}"
            if node.ledger_size
            else "",
            "runs": f"{node.active_runs} in progress, {node.finished_runs} finished",
        }
    )
    show_configuration(node)
    show_history(answer)


def show_configuration(node: "admin.Node") -> None:
    """The three facts, beside what is wanted."""
    from faos_cli.output import enum_text, print_facts

    config = node.config
    click.echo("\nconfiguration")
    print_facts(
        {
            "desired": revision_text(node.desired_revision),
            "attempted": revision_text(config.attempted_revision),
            "running": revision_text(config.running_revision),
            "healthy": revision_text(config.healthy_revision),
            "state": enum_text(config, "state"),
            **nack_facts(config),
        },
        indent=2,
    )


def revision_text(revision: int) -> str:
    return f"revision {revision}" if revision else "none"


def nack_facts(config: "admin.NodeConfig") -> dict[str, str]:
    """Why the attempted revision was refused; nothing when it was not."""
    from faos_cli.output import enum_text

    if not config.HasField("nack"):
        return {}
    nack = config.nack
    place = " ".join(each for each in (nack.kind, nack.resource_name, nack.field_path) if each)
    return {
        "refused": f"{enum_text(nack, 'code')}, on the way to {enum_text(nack, 'failed_to_reach')}",
        "at": place,
        "meaning": nack.explanation,
    }


def show_history(answer: "admin.GetNodeResponse") -> None:
    from faos_cli.output import clock_time, enum_text, moment, print_table

    if not answer.history:
        return
    rows = [
        (
            str(each.attempted_revision),
            enum_text(each, "state"),
            enum_text(each.nack, "code") if each.HasField("nack") else "",
            clock_time(moment(each, "at")),
        )
        for each in answer.history
    ]
    click.echo()
    print_table(("REVISION", "STATE", "REFUSED FOR", "AT"), rows)


def show_revision(answer: "admin.GetRevisionResponse") -> None:
    from faos_cli.output import clock_time, enum_text, moment, print_facts, print_table
    from faos_core.kinds import kind_name

    revision = answer.revision
    print_facts(
        {
            "revision": str(revision.number),
            "tenant": revision.tenant,
            "author": revision.author,
            "reason": revision.reason,
            "content of": revision_text(revision.rollback_of) if revision.rollback_of else "",
            "made": clock_time(moment(revision, "created_at")),
            "manifest": f"sha256 {revision.manifest_sha256.hex()}",
        }
    )
    changes = [(kind_name(each.kind), each.name, enum_text(each, "change").lower()) for each in revision.changes]
    click.echo()
    print_table(("KIND", "NAME", "CHANGE"), changes)
    click.echo()
    show_revision_nodes(answer)


def show_revision_nodes(answer: "admin.GetRevisionResponse") -> None:
    from faos_cli.output import enum_text, print_facts, print_table, printable

    if not answer.nodes:
        click.echo("No node has taken it up yet. See who is there: faos get nodes", err=True)
        return
    print_table(
        ("NODE", "SITE", "STATE"), [(each.node, each.site, enum_text(each.config, "state")) for each in answer.nodes]
    )
    for each in answer.nodes:
        if facts := nack_facts(each.config):
            click.echo(f"\n{printable(each.node)}")
            print_facts(facts, indent=2)


def show_thing(listing: "Listing", item: Any) -> None:
    from faos_cli.output import print_facts
    from faos_core.resource_yaml import dump

    if listing.kind is None:
        columns = (each.lower() for each in listing.columns + listing.wide_columns)
        print_facts(dict(zip(columns, listing.cells(item), strict=True)))
        return
    click.echo(dump([item.resource]), nl=False)
    click.echo(f"\nIt last changed in revision {item.revision}: faos describe revision {item.revision}", err=True)
