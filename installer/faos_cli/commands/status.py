"""faos status"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_node

if TYPE_CHECKING:
    from faos_cli.context import Context


@click.command("status")
@output_option("text", "json")
@with_node
@click.pass_context
def status(ctx: click.Context, context: "Context", output: str) -> None:
    """How the control plane and the node of this context are. Exit code 1 when one of them does not answer, or the
    node has an alarm.

    \b
    Examples:
      faos status
      faos status -o json
    """
    import asyncio

    from faos_cli.output import print_facts, print_json

    control_plane, node = asyncio.run(both(context))
    if output == "json":
        print_json({"controlPlane": control_plane, "node": node})
    else:
        for title, facts in (("control plane", control_plane), ("node", node)):
            click.echo(title)
            print_facts({name: text_of(value) for name, value in facts.items()}, indent=2)
    ctx.exit(0 if is_well(control_plane, node) else 1)


async def both(context: "Context") -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of each. Raises SetupError when the context names neither."""
    if context.admin_address is None:
        return {"state": "not in this context"}, await node_facts(context)
    if context.node_data_dir is None:
        return await control_plane_facts(context), {"state": "not in this context"}
    return await control_plane_facts(context), await node_facts(context)


async def control_plane_facts(context: "Context") -> dict[str, Any]:
    from faos_cli.admin_client import connect, list_nodes
    from faos_cli.output import enum_text
    from faos_core.errors import FaosError

    facts: dict[str, Any] = {"address": context.admin_address}
    try:
        async with connect(context) as client:
            nodes = await list_nodes(client, context.tenant or "")
    except FaosError as error:
        return facts | {"state": "DOWN", "what": error.what, "why": error.why, "next": error.next_step}
    live = sum(enum_text(node, "liveness") == "LIVE" for node in nodes)
    return facts | {"state": "UP", "nodes": f"{live} of {len(nodes)} connected"}


async def node_facts(context: "Context") -> dict[str, Any]:
    from faos_cli.site_client import connect
    from faos_core.errors import FaosError

    facts: dict[str, Any] = {"data": str(context.require_node())}
    try:
        async with connect(context.require_node()) as client:
            said = await client.get_status()
    except FaosError as error:
        return facts | {"state": "DOWN", "what": error.what, "why": error.why, "next": error.next_step}
    return (
        facts
        | {
            "state": "UP",
            "identity": said.spiffe_id,
            "tunnel": "connected" if said.connected else "not connected; the site works on",
            "attempted": said.attempted_revision,
            "running": said.running_revision,
            "healthy": said.healthy_revision,
            "agents": list(said.agents),
            "ledger": f"{said.ledger_size} messages",
            "alarms": list(said.alarms),
        }
        | link_problem(said)
    )


def link_problem(said: Any) -> dict[str, Any]:
    """Why the tunnel is not up, where the node knows."""
    if not said.HasField("link_problem"):
        return {}
    problem = said.link_problem
    return {"what": problem.what, "why": problem.why, "next": problem.next_step}


def is_well(control_plane: dict[str, Any], node: dict[str, Any]) -> bool:
    return "DOWN" not in (control_plane["state"], node["state"]) and not node.get("alarms")


def text_of(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)
