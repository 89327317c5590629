"""faos tool list · faos tool repin SERVER [TOOL]"""

from typing import TYPE_CHECKING

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos.site.v1 import site_pb2 as site
    from faos_cli.context import Context

SHOWN_DIGITS = 12


@click.group("tool")
def tool() -> None:
    """Tools that the agents of this node may be given.

    What a tool says of itself is an instruction to a model, so this site keeps to the definition that it saw first. A
    tool that is described anew is quarantined until somebody here accepts it.
    """


@tool.command("list")
@output_option("table", "json")
@with_node
def list_tools(context: "Context", output: str) -> None:
    """List the tools by server, with the digest that was accepted and the one that the server offers now.

    \b
    Examples:
      faos tool list
      faos tool list -o json
    """
    import asyncio

    asyncio.run(print_tools(context, output))


async def print_tools(context: "Context", output: str) -> None:
    from faos_cli.output import as_json, print_json, print_table
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        found = await client.list_tools()
    if output == "json":
        print_json({"items": [as_json(each) for each in found]})
    elif found:
        rows = [(each.server, each.tool, state_of(each), *map(short, digests_of(each))) for each in found]
        print_table(("SERVER", "TOOL", "STATE", "ACCEPTED", "OFFERED"), rows)
    else:
        click.echo("No tool server runs here. One comes with a ToolServer resource: faos apply --help", err=True)


def state_of(each: "site.ToolState") -> str:
    if each.quarantined:
        return "QUARANTINED"
    return "offered" if each.offered_sha256 else "server down"


def digests_of(each: "site.ToolState") -> tuple[str, str]:
    return each.accepted_sha256, each.offered_sha256


def short(digest: str) -> str:
    return digest[:SHOWN_DIGITS] or "-"


@tool.command("repin")
@click.argument("server")
@click.argument("tool_name", metavar="[TOOL]", default="")
@with_node
def repin(context: "Context", server: str, tool_name: str) -> None:
    """Accept what SERVER says now of a quarantined TOOL, or of all of its quarantined tools.

    \b
    Examples:
      faos tool repin wards free_beds
      faos tool repin wards
    """
    import asyncio

    asyncio.run(repin_tools(context, server, tool_name))


async def repin_tools(context: "Context", server: str, tool_name: str) -> None:
    """Raises NotFoundError (no such server, or the tool is not quarantined), UnavailableError (the server is down)."""
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        accepted = await client.repin_tools(server, tool_name)
    for each in accepted:
        click.echo(f"{server}/{each} accepted as it is now")
    if not accepted:
        click.echo(f"No tool of {server} is quarantined.", err=True)
