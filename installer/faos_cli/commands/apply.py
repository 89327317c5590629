"""faos apply -f FILE"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import (
    expectation_option,
    reason_option,
    set_options,
    sign_options,
    wait_option,
    with_control_plane,
)

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import AdminClient, Settlement
    from faos_cli.context import Context
    from faos_core.resource_reader import Located

    Applied = admin.ApplyResourcesResponse | admin.DeleteResourcesResponse | admin.RollbackRevisionResponse


@click.command("apply")
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE|DIR|-", help="As often as wanted.")
@click.option("--dry-run", is_flag=True, help="Validate at the control plane and say what would change.")
@wait_option
@set_options
@reason_option
@expectation_option
@sign_options
@with_control_plane
def apply(context: "Context", files: tuple[str, ...], dry_run: bool, wait_s: int | None, **given: Any) -> None:
    """Make what is declared in YAML files the desired state. What they do not name stays, unless --prune deletes it.

    \b
    Examples:
      faos apply -f resources/                 every .yaml and .yml below
      faos apply -f agent.yaml --dry-run       only say what would change
      faos apply -f agent.yaml --wait          until the sites run it, or say why not
      faos apply -f resources/ --set ward --prune --reason "bed tool retired"
      cat agent.yaml | faos apply -f -
      faos apply -f resources/ --expect-revision 7     nobody was faster
      faos apply -f resources/ --sign file:publisher.key     signed here, by the publisher's own key
    \b
    One resource of each kind; the site's site.toml defines what they name (source, folder, program):
      {apiVersion: faos/v1, kind: Model, metadata: {name: small}, spec: {runtime: LLAMA_CPP, source: smollm2}}
      ---
      {apiVersion: faos/v1, kind: KnowledgeBase, metadata: {name: handbook}, spec: {folder: handbook}}
      ---
      {apiVersion: faos/v1, kind: ToolServer, metadata: {name: wards}, spec: {program: wards, allowedTools: [beds]}}
      ---
      apiVersion: faos/v1
      kind: Policy
      metadata: {name: read-only}
      spec: {rules: [{name: beds, toolServers: [wards], tools: [beds], effect: ALLOW}]}
      ---
      apiVersion: faos/v1
      kind: Agent
      metadata: {name: assistant, sites: {matchLabels: {site: main}}}
      spec:
        model: small
        instructions: Answer in one sentence.
        knowledge: [handbook]
        tools: [wards]
        policies: [read-only]
    """
    import asyncio

    from faos_core.resource_yaml import load

    require_set(given["apply_set"], prune=given["prune"])
    asyncio.run(run_apply(context, load(files), dry_run=dry_run, wait_s=None if dry_run else wait_s, **given))


def require_set(apply_set: str, *, prune: bool) -> None:
    """Raises SetupError: a prune must say of what."""
    if prune and not apply_set:
        from faos_cli.errors import SET_MISSING
        from faos_core.errors import SetupError

        raise SetupError(SET_MISSING)


async def run_apply(
    context: "Context", located: "list[Located]", *, dry_run: bool, wait_s: float | None, **given: Any
) -> None:
    from faos_cli.admin_client import apply_resources, choose_tenant, connect

    async with connect(context) as client:
        tenant = await choose_tenant(client, context.tenant)
        applied = await apply_resources(client, tenant, located, validate_only=dry_run, **given)
        tell_changes(applied, dry_run=dry_run)
        if wait_s is not None:
            await wait(client, tenant, applied, timeout_s=wait_s)


def tell_changes(applied: "Applied", *, dry_run: bool) -> None:
    """kubectl's lines, then what it means for the sites."""
    from faos_cli.output import coloured, enum_text, printable
    from faos_core.kinds import kind_name

    suffix = " (dry run)" if dry_run else ""
    changed = False
    for change in applied.changes:
        word = enum_text(change, "change").lower()
        changed |= word != "unchanged"
        click.echo(f"{kind_name(change.kind).lower()}/{printable(change.name)} {coloured(word)}{suffix}")
    if not changed:
        click.echo(f"Revision {applied.revision} stands; nothing changed.")
        return
    sites = printable(", ".join(applied.affected_sites)) or "none yet; make one: faos site create NAME"
    note = "would be followed by a new one" if dry_run else "is the desired state now"
    click.echo(f"Revision {applied.revision} {note}; sites: {sites}")


async def wait(client: "AdminClient", tenant: str, applied: "Applied", *, timeout_s: float) -> None:
    """Until the nodes have decided. Raises UnavailableError, InvalidError that explain why one is not healthy."""
    from faos_cli.admin_client import wait_until_settled

    settlement = await wait_until_settled(
        client, tenant, applied.revision, sites=applied.affected_sites, timeout_s=timeout_s, on_change=tell_state
    )
    if not settlement.nodes:
        click.echo("No node is enrolled there yet. Enrol one: faos join-token create --site SITE", err=True)
        return
    refuse_unhealthy(settlement)


def tell_state(node: "admin.Node") -> None:
    from faos_cli.output import coloured, enum_text, printable

    state = enum_text(node.config, "state") or "NOTHING YET"
    link = "" if enum_text(node, "liveness") == "LIVE" else "  (not connected)"
    where = printable(f"{node.site}/{node.name}")
    click.echo(f"  {where}  revision {node.config.attempted_revision}  {coloured(state)}{link}", err=True)


def refuse_unhealthy(settlement: "Settlement") -> None:
    """Raises an error that says which nodes are not healthy, and why."""
    from faos_cli.admin_client import Outcome
    from faos_cli.errors import NODES_REFUSED
    from faos_core.errors import DeadlineError, InvalidError

    counts = {outcome: len(settlement.having(outcome)) for outcome in Outcome}
    if counts[Outcome.HEALTHY] == len(settlement.nodes):
        click.echo(f"Revision {settlement.revision} is healthy on {len(settlement.nodes)} node(s).")
        return
    fields: dict[str, Any] = {
        "revision": settlement.revision,
        "counts": ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count),
    }
    if refused := settlement.having(Outcome.REFUSED):
        hint = f"faos describe node {refused[0].name}"
        raise InvalidError(NODES_REFUSED, reason=refusal_text(refused[0]), hint=hint, **fields)
    waiting = (settlement.having(Outcome.PENDING) or settlement.having(Outcome.SUPERSEDED))[0]
    reason = f"Node {waiting.name} of site {waiting.site} has not decided within the time."
    raise DeadlineError(NODES_REFUSED, reason=reason, hint="Look again: faos get nodes", **fields)


def refusal_text(node: "admin.Node") -> str:
    """One sentence of the node's NACK, and what the control plane says about it."""
    from faos_cli.output import enum_text

    nack = node.config.nack
    where = " ".join(part for part in (nack.kind, nack.resource_name, nack.field_path) if part)
    at = f" at {where}" if where else ""
    return f"Node {node.name} of site {node.site} refused it{at} ({enum_text(nack, 'code')}). {nack.explanation}"
