"""faos join STRING"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import FILE, FOLDER, network_options

if TYPE_CHECKING:
    from data_plane.identity.store import Membership
    from data_plane.network import Network

DEFAULT_FOLDER = Path("faos-node")


@click.command("join")
@click.argument("string")
@click.option("--data", type=FOLDER, default=DEFAULT_FOLDER, show_default=True, help="Folder for the node's data.")
@click.option("--site-file", type=FILE, help="The site's ceiling.  [default: site.toml in the data folder]")
@click.option("--site", default="", metavar="NAME", help="Refuse a string for any other site.")
@network_options
def join(string: str, data: Path, site_file: Path | None, site: str, **network: Any) -> None:
    """Enrol this machine as a node of a site, with the STRING that `faos join-token create` printed ('-': read it
    from standard input, which keeps it out of the shell's history).

    \b
    Examples:
      faos join faos-join-v1.CgN…
      ssh cloud faos join-token create --site annex | faos join -
      faos join - --data /var/lib/faos/node --site annex < string.txt
      faos join - --proxy http://proxy.example:3128 --proxy-credentials /etc/faos/proxy < string.txt

    What is said of the network is kept in the data folder, for `faos node run`. When it fails: faos doctor STRING.
    """
    import asyncio

    from data_plane.ceiling.load import load_ceiling
    from data_plane.ceiling.models import Ceiling
    from data_plane.identity.join import join as enrol

    folder = data.absolute()
    ceiling_file = site_file.absolute() if site_file else folder / "site.toml"
    ceiling = load_ceiling(ceiling_file) if site_file or ceiling_file.exists() else Ceiling()
    text = sys.stdin.read() if string == "-" else string
    member = asyncio.run(enrol(folder, text, ceiling, site=site, network=network_of(**network)))
    remember(member, folder)
    tell(member, data, ceiling_file)


def network_of(proxy: str | None, proxy_credentials: Path | None, ca_dir: Path | None) -> "Network | None":
    """What the flags say; None when they say nothing."""
    from data_plane.network import Network

    files = (each.absolute() if each else None for each in (proxy_credentials, ca_dir))
    said = Network(proxy, *files)
    return None if said == Network() else said


def remember(member: "Membership", folder: Path) -> None:
    """A context in the data folder, for `faos --context`."""
    from faos_cli.context import FILE_NAME, Context, write_context

    identity = member.identity
    context = Context(tenant=str(identity.tenant), site=str(identity.site), node_data_dir=folder)
    write_context(folder / FILE_NAME, context)


def tell(member: "Membership", data: Path, ceiling_file: Path) -> None:
    """Who this node is now, and what two people should compare."""
    identity = member.identity
    click.echo(f"Joined tenant {identity.tenant}, site {identity.site}, as {identity.node}.")
    click.echo(f"  fingerprint  {' '.join(member.words)}")
    click.echo(f"  compare it with the control plane's: faos describe node {identity.node}")
    run = f"faos node run --data {data}"
    if ceiling_file.parent != data.absolute() or ceiling_file.name != "site.toml":
        run += f" --site-file {ceiling_file}"
    before = "" if ceiling_file.exists() else f"write what the site allows into {ceiling_file}, then: "
    click.echo(f"  next: {before}{run}")
