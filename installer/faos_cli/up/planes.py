"""The control plane and the node, brought together through their APIs: tenant, site, enrolment, configuration."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_plane.ceiling.models import Ceiling
from data_plane.identity.join import join
from data_plane.identity.store import IdentityStore, Membership
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_cli import admin_client, site_client
from faos_cli.admin_client import AdminClient, Outcome
from faos_cli.context import Context, write_context
from faos_cli.up.children import Child
from faos_cli.up.errors import CHILD_LATE, NOT_HEALTHY, OTHER_CONTROL_PLANE, REFUSED
from faos_cli.up.hints import program
from faos_cli.up.layout import Layout, told_by_path
from faos_cli.up.ports import HOST
from faos_cli.up.screen import shown
from faos_core.errors import ConflictError, DeadlineError, SetupError, UnavailableError
from faos_core.resource_yaml import load

TENANT, SITE = "quickstart", "main"
READY_TIMEOUT_S = 180.0  # one that ended is seen at once; this is for a machine that is slow
HEALTHY_TIMEOUT_S = 180.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying the example came to."""

    revision: int
    created: int
    updated: int
    unchanged: int

    def __str__(self) -> str:
        parts = {"created": self.created, "updated": self.updated, "unchanged": self.unchanged}
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count)


async def until_control_plane_ready(layout: Layout, child: Child) -> None:
    """Its announcement must be of this very process. Raises DeadlineError."""
    file = layout.control_plane / "endpoints.json"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while announced_pid(file) != child.pid:
        if time.monotonic() > deadline:
            raise late(child)
        await asyncio.sleep(POLL_S)


def announced_pid(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(json.loads(file.read_text())["pid"])
    return 0


def late(child: Child) -> DeadlineError:
    fields = {"title": child.command.title, "log": shown(child.command.log)}
    return DeadlineError(CHILD_LATE, seconds=round(READY_TIMEOUT_S), **fields)


def save_context(layout: Layout, admin_port: int) -> Context:
    """For every other command: whom to speak to. Raises SetupError."""
    context = Context(
        admin_address=f"{HOST}:{admin_port}",
        ca_file=layout.control_plane / "ca" / "ca.pem",
        token_file=layout.control_plane / "admin.token",
        tenant=TENANT,
        site=SITE,
        node_data_dir=layout.node,
        site_file=layout.ceiling,
        control_plane_data_dir=layout.control_plane,
    )
    with told_by_path(layout.context):
        write_context(layout.context, context)
    return context


async def ensure_site(client: AdminClient) -> None:
    """The tenant and its site are there."""
    with contextlib.suppress(ConflictError):
        await admin_client.create_tenant(client, TENANT)
    with contextlib.suppress(ConflictError):
        await admin_client.create_site(client, TENANT, SITE)


def is_joined(layout: Layout) -> bool:
    return IdentityStore(layout.node).is_joined()


def membership(layout: Layout) -> Membership:
    """Raises IntegrityError (damaged), SetupError (of another control plane)."""
    member = IdentityStore(layout.node).load()
    ca = layout.control_plane / "ca" / "ca.pem"
    if not ca.exists() or ca.read_bytes().strip() != member.credentials.ca_pem.strip():
        raise SetupError(OTHER_CONTROL_PLANE, node=shown(layout.node), control_plane=shown(layout.control_plane))
    return member


async def enrol(client: AdminClient, layout: Layout, tunnel_port: int) -> Membership:
    """The real enrolment, with a token that lives for a minute."""
    answer = await admin_client.create_join_token(client, TENANT, SITE, ttl_s=60, addresses=[f"{HOST}:{tunnel_port}"])
    return await join(layout.node, answer.join_string, Ceiling(), site=SITE)


async def apply_example(client: AdminClient, quickstart: Path) -> Applied:
    """Raises ResourceFilesError, ResourcesRefusedError."""
    answer = await admin_client.apply_resources(client, TENANT, load([quickstart / "resources"]))
    changes = [change.change for change in answer.changes]
    return Applied(
        answer.revision,
        created=changes.count(admin.CHANGE_TYPE_CREATED),
        updated=changes.count(admin.CHANGE_TYPE_UPDATED),
        unchanged=changes.count(admin.CHANGE_TYPE_UNCHANGED),
    )


async def until_healthy(
    client: AdminClient, layout: Layout, name: str, revision: int, *, say: Callable[[str], None], log: Path
) -> None:
    """Until the control plane shows the node live and healthy at the revision, and the node itself runs it.

    Raises SetupError (refused; the reason is told), DeadlineError.
    """
    deadline = time.monotonic() + HEALTHY_TIMEOUT_S
    while True:
        node = (await admin_client.get_node(client, TENANT, name)).node
        outcome = admin_client.outcome_of(node, revision)
        if outcome is Outcome.REFUSED:
            raise refused(node, log)
        is_live = node.liveness == admin.LIVENESS_LIVE
        if outcome is Outcome.HEALTHY and is_live and await running_revision(layout) >= revision:
            return
        say(state_of(node))
        if time.monotonic() > deadline:
            fields = {"state": state_of(node), "log": shown(log)}
            raise DeadlineError(NOT_HEALTHY, seconds=round(HEALTHY_TIMEOUT_S), **fields)
        await asyncio.sleep(POLL_S)


async def running_revision(layout: Layout) -> int:
    """What the node itself says; 0 while it does not answer."""
    try:
        async with site_client.connect(layout.node) as client:
            return (await client.get_status()).running_revision
    except UnavailableError:
        return 0


def state_of(node: admin.Node) -> str:
    """As `faos get nodes` would say it."""
    if node.liveness != admin.LIVENESS_LIVE:
        return "starting"
    return ApplyState.Name(node.config.state).removeprefix("APPLY_STATE_").lower()


def refused(node: admin.Node, log: Path) -> SetupError:
    nack = node.config.nack
    whose = f"{nack.kind} {nack.resource_name}".strip()
    fields = {"whose": whose, "why": nack.explanation, "node": node.name, "log": shown(log), "command": program()}
    return SetupError(REFUSED, state=state_of(node), **fields)
