"""How both sides are, at a glance: asked at the same time, each for five seconds at most."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_cli import admin_client, site_client
from faos_cli.context import Context
from faos_cli.errors import NO_ANSWER
from faos_cli.output import age, as_json, byte_size, enum_text, moment
from faos_core.errors import FaosError, UnavailableError

PATIENCE_S = 5.0
MOST_NAMED = 10  # nodes that need attention; more are counted
ABSENT, UP, DOWN = "not in this context", "UP", "DOWN"


@dataclass(frozen=True, slots=True)
class Glance:
    """One side. facts: for people, by name; document: for programs."""

    state: str
    facts: Mapping[str, str]
    document: Mapping[str, Any]
    has_alarm: bool = False

    @property
    def is_well(self) -> bool:
        return self.state != DOWN and not self.has_alarm


async def both(context: Context) -> tuple[Glance, Glance]:
    """The control plane and the node of a context. Raises SetupError where it names neither."""
    if context.admin_address is None:
        context.require_node()
    cloud = of_control_plane(context) if context.admin_address else nowhere()
    node = of_node(context) if context.node_data_dir else nowhere()
    return await asyncio.gather(cloud, node)


async def nowhere() -> Glance:
    return Glance(ABSENT, {"state": ABSENT}, {"state": ABSENT})


async def within_patience(ask: Callable[[], Awaitable[Glance]], where: Mapping[str, str]) -> Glance:
    """What is asked for, or why it is not to be had, with what to type."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await ask()
    except TimeoutError:
        return down(UnavailableError(NO_ANSWER, whom=next(iter(where.values())), seconds=round(PATIENCE_S)), where)
    except FaosError as error:
        return down(error, where)


def down(error: FaosError, where: Mapping[str, str]) -> Glance:
    facts = {"what": error.what, "why": error.why, "next": error.next_step}
    return Glance(DOWN, {**where, "state": DOWN, **facts}, {**where, "state": DOWN, "code": error.code.code, **facts})


# ---- the control plane


async def of_control_plane(context: Context) -> Glance:
    async def ask() -> Glance:
        async with admin_client.connect(context) as client:
            return glance_of_fleet(await admin_client.list_nodes(client, context.tenant or ""), where)

    where = {"address": str(context.admin_address)}
    return await within_patience(ask, where)


def glance_of_fleet(nodes: Sequence[admin.Node], where: Mapping[str, str]) -> Glance:
    live = sum(node.liveness == admin.LIVENESS_LIVE for node in nodes)
    settled = sum(node.config.healthy_revision == node.desired_revision for node in nodes)
    troubled = [(node, problem) for node in nodes if (problem := trouble_of(node))]
    facts = {
        **where,
        "state": UP,
        "nodes": f"{live} of {len(nodes)} connected",
        "configuration": f"healthy on {settled} of {len(nodes)}" if nodes else "",
        "attention": attention(troubled),
    }
    document = {
        **where,
        "state": UP,
        "nodes": {"total": len(nodes), "connected": live, "healthy": settled},
        "attention": [{"tenant": it.tenant, "site": it.site, "node": it.name, "is": said} for it, said in troubled],
    }
    return Glance(UP, facts, document, has_alarm=any(node.alarm for node in nodes))


def trouble_of(node: admin.Node, *, now: datetime | None = None) -> str:
    """What somebody should look at; "" for a node that is connected and does as it should."""
    if node.alarm:
        return node.alarm
    if node.standing not in (admin.NODE_STANDING_UNSPECIFIED, admin.NODE_STANDING_ADMITTED):
        return enum_text(node, "standing")
    if node.liveness != admin.LIVENESS_LIVE:
        since = age(moment(node, "last_seen_at"), now=now)
        return f"{enum_text(node, 'liveness')} for {since}" if since else enum_text(node, "liveness")
    if enum_text(node.config, "state") in ("REJECTED", "ROLLED_BACK", "PENDING_APPROVAL"):
        return f"{enum_text(node.config, 'state')} revision {node.config.attempted_revision}"
    return ""


def attention(troubled: Sequence[tuple[admin.Node, str]]) -> str:
    lines = [f"{node.name} at {node.site}: {problem}" for node, problem in troubled[:MOST_NAMED]]
    if len(troubled) > MOST_NAMED:
        lines.append(f"and {len(troubled) - MOST_NAMED} more: faos get nodes")
    return "\n".join(lines)


# ---- the node


async def of_node(context: Context) -> Glance:
    folder = context.require_node()

    async def ask() -> Glance:
        async with site_client.connect(folder) as client:
            return glance_of_node(await client.get_status(), where)

    where = {"data": str(folder)}
    return await within_patience(ask, where)


def glance_of_node(said: site.GetStatusResponse, where: Mapping[str, str]) -> Glance:
    document = {**where, "state": UP, **as_json(said)}
    return Glance(UP, {**where, "state": UP, **facts_of(said)}, document, has_alarm=bool(said.alarms))


def facts_of(said: site.GetStatusResponse) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "identity": said.spiffe_id,
        "up for": age(moment(said, "started_at"), now=now),
        "tunnel": tunnel_text(said, now),
        "certificate": remaining(moment(said, "certificate_expires_at"), now),
        "attempted": str(said.attempted_revision),
        "running": str(said.running_revision),
        "healthy": str(said.healthy_revision),
        "agents": ", ".join(said.agents) or "none",
        "models": ", ".join(said.models),
        "tools": "\n".join(server_text(server) for server in said.tool_servers),
        "runs": runs_text(said),
        "ledger": ledger_text(said),
        "events": f"{said.events_waiting} wait for the control plane" if said.events_waiting else "",
        "alarms": "\n".join(alarm_lines(said)) or "none",
    }


def tunnel_text(said: site.GetStatusResponse, now: datetime) -> str:
    where = f" to {said.control_plane}" if said.control_plane else ""
    if said.connected:
        since = age(moment(said, "connected_since"), now=now)
        return f"connected{where}{f' for {since}' if since else ''}"
    lines = [f"not connected{where}; the site works on"]
    if said.HasField("link_problem"):
        lines += problem_lines(said.link_problem)
    return "\n".join(lines)


def problem_lines(problem: site.LinkProblem) -> list[str]:
    told = {"why": problem.why, "next": problem.next_step}
    head = f"{problem.code}: {problem.what}" if problem.what else problem.code
    return [head, *(f"  {name}: {text}" for name, text in told.items() if text)]


def alarm_lines(said: site.GetStatusResponse) -> list[str]:
    """An older node tells the codes alone."""
    details = list(said.alarm_details) or [site.LinkProblem(code=code) for code in said.alarms]
    return [line for each in details for line in problem_lines(each)]


def remaining(expires_at: datetime | None, now: datetime) -> str:
    if expires_at is None:
        return ""
    return f"expires in {age(now, now=expires_at)}" if expires_at > now else f"EXPIRED {age(expires_at, now=now)} ago"


def server_text(server: site.ToolServerHealth) -> str:
    counted = f"{server.tools} tool{'' if server.tools == 1 else 's'}"
    return f"{server.name}: {counted}{f', {server.problem}' if server.problem else ''}"


def runs_text(said: site.GetStatusResponse) -> str:
    ended = [f"{each.count} {enum_text(each, 'state').lower()}" for each in said.ended_runs if each.count]
    return ", ".join([f"{said.active_runs} under way", *ended])


def ledger_text(said: site.GetStatusResponse) -> str:
    whole = f"{said.ledger_size} messages"
    classes = [each for each in said.ledger_classes if each.leaves]
    if not classes:
        return whole
    size = byte_size(sum(each.size_bytes for each in classes))
    return f"{whole}, {size}: " + ", ".join(f"{each.leaves} {each.data_class}" for each in classes)
