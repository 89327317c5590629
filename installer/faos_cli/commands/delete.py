"""faos delete KIND NAME…"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.options import expectation_option, reason_option, sign_options, with_control_plane

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.context import Context
    from faos_core.resource_reader import Located


@click.command("delete")
@click.argument("targets", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]", shell_complete=completion.targets)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE|DIR|-", help="Delete what these files declare.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and whether something still needs it.")
@reason_option
@expectation_option
@sign_options
@with_control_plane
def delete(context: "Context", targets: tuple[str, ...], files: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Remove resources, as one new revision. Refused while others refer to them, and those are named.

    \b
    Examples:
      faos delete agent assistant
      faos delete agent assistant nurse --reason "ward closed"
      faos delete agent/assistant model/small --dry-run
      faos delete -f resources/
      faos delete agent nurse --sign hsm:2     signed here, by the publisher's own key
    \b
    A deletion can be undone: faos get revisions, then faos rollback REVISION.
    """
    import asyncio

    from faos_core.resource_yaml import load

    if bool(targets) == bool(files):
        raise click.UsageError("Say what to delete: faos delete KIND NAME, or faos delete -f FILE")
    located = load(files) if files else []
    names = names_declared(located) if files else names_typed(targets)
    asyncio.run(run_delete(context, names, located, dry_run=dry_run, **given))


def names_typed(targets: tuple[str, ...]) -> "list[admin.ResourceName]":
    """KIND NAME…, or KIND/NAME…. Raises UsageError."""
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.listings import listing_named

    kind, *rest = targets
    pairs = [target.partition("/")[::2] for target in targets] if "/" in kind else [(kind, name) for name in rest]
    if not pairs or not all(name for _, name in pairs):
        raise click.UsageError("Write KIND NAME… or KIND/NAME…, e.g. faos delete agent assistant")
    names = []
    for each, name in pairs:
        listing = listing_named(each)
        if not listing.kind:
            raise click.UsageError(f"{listing.plural} cannot be deleted; resources of one kind can, e.g. agents.")
        names.append(admin.ResourceName(kind=listing.kind, name=name))
    return names


def names_declared(located: "list[Located]") -> "list[admin.ResourceName]":
    from faos.admin.v1 import admin_pb2 as admin
    from faos_core.kinds import kind_of

    resources = (each.resource for each in located)
    return [admin.ResourceName(kind=kind_of(each), name=each.metadata.name) for each in resources]


async def run_delete(
    context: "Context",
    names: "list[admin.ResourceName]",
    located: "list[Located]",
    *,
    dry_run: bool,
    **given: Any,
) -> None:
    from faos_cli.admin_client import choose_tenant, connect, delete_resources
    from faos_cli.commands.apply import tell_changes

    async with connect(context) as client:
        tenant = await choose_tenant(client, context.tenant)
        deleted = await delete_resources(client, tenant, names, located, validate_only=dry_run, **given)
        tell_changes(deleted, dry_run=dry_run)
