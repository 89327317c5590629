"""faos node run"""

from pathlib import Path
from typing import Any

import click


@click.group("node")
def node() -> None:
    """Run this machine's node."""


@node.command("run")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="node.toml")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder that `faos join` filled.")
@click.option("--site-file", type=click.Path(dir_okay=False, path_type=Path), help="The site's ceiling, site.toml.")
@click.option("--soak", "soak_s", type=float, metavar="SECONDS", help="How long new configuration is watched.")
def run(config: Path | None, data: Path | None, site_file: Path | None, soak_s: float | None) -> None:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM). It works with the control plane gone.

    \b
    Examples:
      faos node run --data ./node
      faos node run --config /etc/faos/node.toml
    """
    import asyncio

    from data_plane.app import serve
    from faos_core.logs import configure

    settings = settings_of(config, data, site_file, soak_s)
    configure(settings.log_level, settings.log_format)
    asyncio.run(serve(settings))


def settings_of(config: Path | None, data: Path | None, site_file: Path | None, soak_s: float | None) -> Any:
    """The file's settings with the flags over them."""
    import os
    from dataclasses import replace

    from data_plane.settings import NodeSettings, load_settings

    if config is None and data is None:
        raise click.UsageError("Say where its data is: --data DIR, or --config FILE.")
    base = load_settings(config, os.environ) if config else NodeSettings(data_dir=data.absolute())  # type: ignore[union-attr]  # one of them is given
    flags: dict[str, Any] = {}
    if data:
        flags["data_dir"] = data.absolute()
    if site_file:
        flags["site_file"] = site_file.absolute()
    if soak_s is not None:
        flags["apply"] = replace(base.apply, soak_s=soak_s)
    return replace(base, **flags)
