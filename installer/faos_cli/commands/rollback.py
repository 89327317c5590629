"""faos rollback REVISION"""

from typing import TYPE_CHECKING, Any

import click

from faos_cli import completion
from faos_cli.commands.apply import tell_changes, wait
from faos_cli.options import expectation_option, reason_option, sign_options, wait_option, with_control_plane

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.context import Context


@click.command("rollback")
@click.argument("revision", type=click.IntRange(min=1), shell_complete=completion.revisions)
@click.option("--dry-run", is_flag=True, help="Say what would change.")
@wait_option
@reason_option
@expectation_option
@sign_options
@with_control_plane
def rollback(context: "Context", revision: int, dry_run: bool, wait_s: int | None, **given: Any) -> None:
    """Bring back all that an earlier revision declared, as a new and higher revision.

    Nodes that refused that content before are named: while they quarantine it, they will refuse it again.

    \b
    Examples:
      faos get revisions                       what there is, by whom and why
      faos rollback 3 --dry-run
      faos rollback 3 --reason "answers got worse" --wait
      faos rollback 3 --sign file:publisher.key     signed here, by the publisher's own key
    """
    import asyncio

    asyncio.run(run_rollback(context, revision, dry_run=dry_run, wait_s=None if dry_run else wait_s, **given))


async def run_rollback(context: "Context", revision: int, *, dry_run: bool, wait_s: float | None, **given: Any) -> None:
    from faos_cli.admin_client import choose_tenant, connect, rollback_revision

    async with connect(context) as client:
        tenant = await choose_tenant(client, context.tenant)
        done = await rollback_revision(client, tenant, revision, validate_only=dry_run, **given)
        tell_changes(done, dry_run=dry_run)
        warn(done, revision)
        if wait_s is not None:
            await wait(client, tenant, done, timeout_s=wait_s)


def warn(done: "admin.RollbackRevisionResponse", revision: int) -> None:
    """Of nodes that will refuse it again."""
    from faos_cli.output import enum_text

    for each in done.refused_before:
        code = enum_text(each.config.nack, "code") or enum_text(each.config, "state")
        click.echo(
            f"warning: node {each.node} of site {each.site} refused revision {revision} before ({code}) and may again:"
            f" faos describe node {each.node}",
            err=True,
        )
