"""faos up"""

from pathlib import Path

import click

DEFAULT_DATA = Path(".faos")
CHECKOUT_ASSETS = Path(__file__).resolve().parents[3] / ".cache" / "models"


@click.command("up")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA,
    show_default=True,
    help="Folder for everything that it keeps.",
)
@click.option("--once", is_flag=True, help="Stop everything after the answers and the check.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write times and findings here."
)
@click.option("--tunnel-port", type=click.IntRange(1, 65535), help="Where the node dials in.  [7443, or a free one]")
@click.option("--admin-port", type=click.IntRange(1, 65535), help="Where the admin API is.  [7444, or a free one]")
def up(data: Path, once: bool, json_file: Path | None, tunnel_port: int | None, admin_port: int | None) -> None:
    """Everything on this machine, from nothing to an agent's answers: a control plane and a site node as separate
    processes, the example configuration, one question that needs a document and one that needs a tool; then a check
    of where the answers came from and of what left the site. Stays up until Ctrl-C.

    \b
    Examples:
      faos up                       data in ./.faos; the second time it is quick
      faos up --once                the same, and stop
      faos up --data /srv/faos      elsewhere

    Models are kept in .cache/models of the source folder, or where FAOS_ASSETS says.
    """
    import asyncio
    import os

    from faos_cli.up.began import command_began_s
    from faos_cli.up.screen import Screen
    from faos_cli.up.service import Options
    from faos_cli.up.service import up as bring_up

    assets = Path(os.environ.get("FAOS_ASSETS") or CHECKOUT_ASSETS)
    options = Options(data, assets, once, json_file, tunnel_port or 0, admin_port or 0)
    try:
        asyncio.run(bring_up(options, Screen(), began_s=command_began_s()))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
