"""faos control-plane run"""

from pathlib import Path
from typing import Any

import click


@click.group("control-plane")
def control_plane() -> None:
    """Run the control plane."""


@control_plane.command("run")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="control-plane.toml")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder for keys and database.")
@click.option("--tunnel-listen", metavar="HOST:PORT", help="Where nodes dial in.")
@click.option("--admin-listen", metavar="HOST:PORT", help="Where the admin API listens.")
@click.option(
    "--public-address", "public_addresses", metavar="HOST:PORT", multiple=True, help="Goes into join strings."
)
@click.option("--record-frames", type=click.Path(dir_okay=False, path_type=Path), help="Keep every body received.")
def run(config: Path | None, **given: Any) -> None:
    """Run the control plane until it is told to stop (Ctrl-C, SIGTERM).

    \b
    Examples:
      faos control-plane run --data ./cp --public-address cloud.example:7443
      faos control-plane run --config /etc/faos/control-plane.toml
    """
    import asyncio

    from control_plane.app import serve
    from faos_core.logs import configure

    settings = settings_of(config, **given)
    configure(settings.log_level, as_json=settings.log_format == "json")
    asyncio.run(serve(settings))


def settings_of(config: Path | None, **given: Any) -> Any:
    """The file's settings with the flags over them."""
    from dataclasses import replace

    from control_plane.settings import ControlPlaneSettings, load_settings

    flags = {key: value for key, value in given.items() if value}
    record_frames = flags.pop("record_frames", None)
    data_dir = flags.pop("data", None)
    if config is None and data_dir is None:
        raise click.UsageError("Say where its data is: --data DIR, or --config FILE.")
    base = load_settings(config) if config else ControlPlaneSettings(data_dir=data_dir.absolute())
    over = {**flags, **({"received_frames_file": record_frames.absolute()} if record_frames else {})}
    return replace(base, **over, **({"data_dir": data_dir.absolute()} if data_dir else {}))
