"""faos metrics"""

from typing import TYPE_CHECKING

import click

from faos_cli.options import with_node

if TYPE_CHECKING:
    from faos_cli.context import Context


@click.command("metrics")
@click.option("--control-plane", is_flag=True, help="Of the control plane's process, not of the node.")
@with_node
def metrics(context: "Context", control_plane: bool) -> None:
    """What the node has counted and measured since its start, in Prometheus' text format: numbers and our own names.

    \b
    Examples:
      faos metrics
      faos metrics | grep run_duration
      faos metrics --control-plane
    """
    import asyncio

    click.echo(asyncio.run(of_control_plane(context) if control_plane else of_node(context)), nl=False)


async def of_node(context: "Context") -> str:
    from faos_cli.site_client import connect

    async with connect(context.require_node()) as client:
        return await client.get_metrics()


async def of_control_plane(context: "Context") -> str:
    from faos_cli.admin_client import connect, get_metrics

    async with connect(context) as client:
        return (await get_metrics(client)).text
