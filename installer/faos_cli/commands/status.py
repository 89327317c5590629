"""faos status"""

from typing import TYPE_CHECKING

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos_cli.context import Context


@click.command("status")
@output_option("text", "json")
@with_node
@click.pass_context
def status(ctx: click.Context, context: "Context", output: str) -> None:
    """How the control plane and the node of this context are. Either may be missing from the context.

    Exit code 0 when both are well; 1 when one does not answer, or there is an alarm: of the node, or of a node of the
    fleet. A node that is not connected is shown, and is no alarm: its site works on.

    \b
    Examples:
      faos status
      faos status -o json
      faos --context mercy status        the one that faos context list calls mercy
    """
    import asyncio

    from faos_cli.glance import both
    from faos_cli.output import print_facts, print_json

    cloud, node = asyncio.run(both(context))
    if output == "json":
        print_json({"controlPlane": cloud.document, "node": node.document})
    else:
        for title, glance in (("control plane", cloud), ("node", node)):
            click.echo(title)
            print_facts(glance.facts, indent=2)
    ctx.exit(0 if cloud.is_well and node.is_well else 1)
