"""faos tenant · faos site · faos join-token"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from faos_cli.commands.trust import publisher, root
from faos_cli.options import DURATION, FILE, labels_option, output_option, with_control_plane

if TYPE_CHECKING:
    from faos_cli.admin_client import AdminClient
    from faos_cli.context import Context

T = TypeVar("T")


@click.group("tenant")
def tenant() -> None:
    """Tenants: customer organisations, each with its own sites, resources and signing keys."""


tenant.add_command(publisher)
tenant.add_command(root)


@tenant.command("create")
@click.argument("name")
@click.option("--publisher-key", type=FILE, help="Public key (PEM) whose holder signs; without it, the control plane.")
@with_control_plane
def tenant_create(context: "Context", name: str, publisher_key: Path | None) -> None:
    """Make a tenant.

    \b
    Examples:
      faos tenant create mercy
      faos key show file:publisher.key -o pem > publisher.pem
      faos tenant create mercy --publisher-key publisher.pem
    """
    from faos_cli.admin_client import create_tenant, read_credential

    pem = read_credential(publisher_key, "public key").decode(errors="replace") if publisher_key else ""
    made = call(context, lambda client: create_tenant(client, name, publisher_key_pem=pem))
    click.echo(f"tenant/{made.name} created")
    click.echo(f"  next: faos site create NAME --tenant {made.name}", err=True)


@click.group("site")
def site() -> None:
    """Sites: the locations of a tenant."""


@site.command("create")
@click.argument("name")
@labels_option
@with_control_plane
def site_create(context: "Context", name: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Make a site of the tenant. Its nodes carry its labels, and resources select by them.

    \b
    Examples:
      faos site create main
      faos site create annex --label region=north
    """
    from faos_cli.admin_client import choose_tenant, create_site

    async def create(client: "AdminClient") -> Any:
        return await create_site(client, await choose_tenant(client, context.tenant), name, labels=dict(labels))

    made = call(context, create)
    click.echo(f"site/{made.name} created")
    click.echo(f"  next: faos join-token create --site {made.name} --tenant {made.tenant}", err=True)


@click.group("join-token")
def join_token() -> None:
    """One-time tokens that enrol nodes."""


@join_token.command("create")
@click.option("--site", "site_name", metavar="NAME", help="Site that the node is for.  [required]")
@labels_option
@click.option("--ttl", "ttl_s", type=DURATION, default="1h", show_default=True, help="How long it can be used.")
@click.option("--address", "addresses", metavar="HOST:PORT", multiple=True, help="Where the node reaches the tunnel.")
@output_option("string", "json")
@with_control_plane
def join_token_create(context: "Context", site_name: str | None, output: str, **given: Any) -> None:
    """Make a token that enrols one node, once. Prints the join string and nothing else on standard output.

    \b
    Examples:
      faos join-token create --site main
      faos join-token create --site main --ttl 15m --label floor=3
      faos join-token create --site main --address cloud.example:7443 | ssh edge faos join -
    """
    chosen = site_name or context.site
    if not chosen:
        raise click.UsageError("Say which site the node is for: --site NAME")
    answer = call(context, lambda client: create_token(client, context.tenant, chosen, **given))
    show_token(answer, output)


async def create_token(client: "AdminClient", tenant_name: str | None, site_name: str, **given: Any) -> Any:
    from faos_cli.admin_client import choose_tenant, create_join_token

    given["labels"] = dict(given["labels"])
    return await create_join_token(client, await choose_tenant(client, tenant_name), site_name, **given)


def show_token(answer: Any, output: str) -> None:
    from faos_cli.output import as_json, clock_time, moment, print_json

    if output == "json":
        print_json(as_json(answer))
        return
    token = answer.join_token
    until = clock_time(moment(token, "expires_at"))
    click.echo(f"Enrols one node at {token.tenant}/{token.site}, once, until {until}. At the site:", err=True)
    click.echo("  faos join STRING", err=True)
    click.echo(answer.join_string)


def call(context: "Context", use: "Callable[[AdminClient], Awaitable[T]]") -> T:
    """What `use` gives with a client of the context's control plane."""
    import asyncio

    from faos_cli.admin_client import connect

    async def connected() -> T:
        async with connect(context) as client:
            return await use(client)

    return asyncio.run(connected())
