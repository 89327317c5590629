"""faos control-plane run"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import FILE, FOLDER, telemetry_option

if TYPE_CHECKING:
    from control_plane.app import Endpoints
    from control_plane.settings import ControlPlaneSettings


@click.group("control-plane")
def control_plane() -> None:
    """Run the control plane."""


@control_plane.command("run")
@click.option("--config", type=FILE, help="control-plane.toml")
@click.option("--data", type=FOLDER, help="Folder for keys and database.")
@click.option("--tunnel-listen", metavar="HOST:PORT", help="Where nodes dial in.  [default: 0.0.0.0:7443]")
@click.option("--admin-listen", metavar="HOST:PORT", help="Where the admin API listens.  [default: 127.0.0.1:7444]")
@click.option(
    "--public-address", "public_addresses", metavar="HOST:PORT", multiple=True, help="Goes into join strings."
)
@click.option("--record-frames", type=FILE, help="Keep every body received, to prove what did not come.")
@telemetry_option
def run(config: Path | None, **given: Any) -> None:
    """Run the control plane until it is told to stop (Ctrl-C, SIGTERM). Writes a context.json for the other commands
    into its data folder.

    \b
    Examples:
      faos control-plane run --data ./cp --public-address cloud.example:7443
      faos control-plane run --config /etc/faos/control-plane.toml
      faos --context ./cp get nodes
    """
    from functools import partial

    from control_plane import app
    from faos_core.logs import configure

    settings = settings_of(config, **given)
    configure(settings.log_level, settings.log_format)
    app.run(settings, on_ready=partial(remember, settings))


def remember(settings: "ControlPlaneSettings", endpoints: "Endpoints") -> None:
    """A context for whoever may read the token."""
    from faos_cli.context import FILE_NAME, Context, write_context
    from faos_core.address import local_address

    folder = settings.data_dir
    context = Context(
        admin_address=str(local_address(settings.admin_listen, endpoints.admin_port)),
        ca_file=folder / "ca" / "ca.pem",
        token_file=settings.admin_token_file,
        control_plane_data_dir=folder,
    )
    write_context(folder / FILE_NAME, context)


def settings_of(config: Path | None, *, telemetry: str | None = None, **given: Any) -> "ControlPlaneSettings":
    """The file's settings with the flags over them. Raises UsageError, SetupError."""
    from dataclasses import replace

    from control_plane.settings import ControlPlaneSettings, load_settings
    from faos_core.telemetry_target import Target

    flags = {key: value for key, value in given.items() if value}
    for name, key in (("data", "data_dir"), ("record_frames", "received_frames_file")):
        if name in flags:
            flags[key] = flags.pop(name).absolute()
    if config is None and "data_dir" not in flags:
        raise click.UsageError("Say where its data is: --data DIR, or --config FILE.")
    base = load_settings(config) if config else ControlPlaneSettings(data_dir=flags["data_dir"])
    if telemetry:
        flags["telemetry"] = replace(base.telemetry, to=Target(telemetry))
    try:
        return replace(base, **flags)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
