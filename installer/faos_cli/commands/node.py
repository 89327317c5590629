"""faos node run · faos node revoke · faos node evict · faos node readmit"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import telemetry_option, with_control_plane

if TYPE_CHECKING:
    from faos_cli.admin_client import AdminClient
    from faos_cli.context import Context


@click.group("node")
def node() -> None:
    """Run this machine's node; on the control plane, ban, forget or readmit one."""


@node.command("run")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="node.toml")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder that `faos join` filled.")
@click.option("--site-file", type=click.Path(dir_okay=False, path_type=Path), help="The site's ceiling, site.toml.")
@click.option("--soak", "soak_s", type=float, metavar="SECONDS", help="How long new configuration is watched.")
@telemetry_option
def run(config: Path | None, **given: Any) -> None:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM). It works with the control plane gone.

    \b
    Examples:
      faos node run --data ./node
      faos node run --config /etc/faos/node.toml
    """
    from data_plane.identity.store import IdentityStore
    from faos_core.logs import configure

    settings = settings_of(config, **given)
    IdentityStore(settings.data_dir).load()  # says "join first" before seconds of imports
    from data_plane import app

    configure(settings.log_level, settings.log_format)
    app.run(settings)


@node.command("revoke")
@click.argument("name", shell_complete=completion.nodes)
@click.option("--reason", default="", metavar="TEXT", help="Why; shown by `faos describe node`.")
@with_control_plane
def revoke(context: "Context", name: str, reason: str) -> None:
    """Ban a node: its streams are cut at once, and its keys and certificates open nothing any more.

    \b
    Examples:
      faos node revoke NAME --reason "stolen from the van"
    """
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import choose_tenant
    from faos_cli.commands.tenancy import call

    async def use(client: "AdminClient") -> None:
        tenant = await choose_tenant(client, context.tenant)
        await client.call(client.nodes.RevokeNode, admin.RevokeNodeRequest(tenant=tenant, name=name, reason=reason))

    call(context, use)
    click.echo(f"node/{name} revoked")


@node.command("evict")
@click.argument("name", shell_complete=completion.nodes)
@with_control_plane
def evict(context: "Context", name: str) -> None:
    """Forget a node: its streams are cut at once. Its machine may join again with a new token, as a new node.

    \b
    Examples:
      faos node evict NAME
    """
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import choose_tenant
    from faos_cli.commands.tenancy import call

    async def use(client: "AdminClient") -> None:
        tenant = await choose_tenant(client, context.tenant)
        await client.call(client.nodes.EvictNode, admin.EvictNodeRequest(tenant=tenant, name=name))

    call(context, use)
    click.echo(f"node/{name} evicted")


@node.command("readmit")
@click.argument("name", shell_complete=completion.nodes)
@click.option("--reason", default="", metavar="TEXT", help="Why; shown by `faos describe node`.")
@with_control_plane
def readmit(context: "Context", name: str, reason: str) -> None:
    """End a node's quarantine and its alarm: when it was copied or restored, and there is one machine of it again.

    It comes back by itself. Should there be two after all, the alarm comes again. A revoked node stays revoked.

    \b
    Examples:
      faos node readmit NAME --reason "restored from Monday's backup"
    """
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import choose_tenant
    from faos_cli.commands.tenancy import call

    async def use(client: "AdminClient") -> None:
        tenant = await choose_tenant(client, context.tenant)
        await client.call(client.nodes.ReadmitNode, admin.ReadmitNodeRequest(tenant=tenant, name=name, reason=reason))

    call(context, use)
    click.echo(f"node/{name} readmitted")


def settings_of(
    config: Path | None,
    *,
    data: Path | None,
    site_file: Path | None,
    soak_s: float | None,
    telemetry: str | None = None,
) -> Any:
    """The file's settings with the flags over them."""
    import os
    from dataclasses import replace

    from data_plane.settings import load_settings, settings_without_file
    from faos_core.telemetry_target import Target

    if config is None and data is None:
        raise click.UsageError("Say where its data is: --data DIR, or --config FILE.")
    base = load_settings(config, os.environ) if config else settings_without_file(data.absolute(), os.environ)  # type: ignore[union-attr]  # one of them is given
    flags: dict[str, Any] = {}
    if data:
        flags["data_dir"] = data.absolute()
    if site_file:
        flags["site_file"] = site_file.absolute()
    if soak_s is not None:
        flags["apply"] = replace(base.apply, soak_s=soak_s)
    if telemetry:
        flags["telemetry"] = replace(base.telemetry, to=Target(telemetry))
    return replace(base, **flags)
