"""faos join STRING"""

import sys
from pathlib import Path

import click


@click.command("join")
@click.argument("string")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), default=Path("faos-node"), show_default=True)
@click.option("--site", default="", help="Refuse a string for any other site.")
def join(string: str, data: Path, site: str) -> None:
    """Enrol this machine as a node of a site, with the STRING that `faos join-token create` printed ('-': read it
    from standard input, which keeps it out of the shell's history).

    \b
    Examples:
      faos join faos-join-v1.CgN…
      ssh cloud faos join-token create --site annex | faos join -
    """
    import asyncio

    from data_plane.ceiling.models import Ceiling
    from data_plane.identity.join import join as enrol

    text = sys.stdin.read() if string == "-" else string
    member = asyncio.run(enrol(data.absolute(), text, Ceiling(), site=site))
    identity = member.identity
    click.echo(f"Joined tenant {identity.tenant}, site {identity.site}, as {identity.node}.")
    click.echo(f"  fingerprint  {' '.join(member.words)}")
    click.echo(f"  compare it with the control plane's: faos describe node {identity.node}")
    click.echo(f"  next: faos node run --data {data}")
