"""How this machine reaches others: its proxy and its authorities. Facts of its network, not permissions of the site.

`node.toml` says them; `network.toml` in the data folder keeps what `faos join` was told, for a node without one.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from faos_core.disk import Disk
from faos_core.settings import load_toml

FILE_NAME = "network.toml"
HEAD = "# Written by `faos join`; node.toml and FAOS_NODE_ variables win over it.\n"


@dataclass(frozen=True, slots=True)
class Network:
    """Every path absolute. All None: directly, with the system's authorities."""

    proxy: str | None = field(default=None, repr=False)  # URL, perhaps with a password; "" means none
    proxy_credentials_file: Path | None = None  # one line, user:password; read at every dial
    ca_dir: Path | None = None  # PEM files, trusted besides the system's by every door but the tunnel


def keep(data_dir: Path, network: Network) -> None:
    """Durable when it returns; mode 0600. Raises OSError."""
    disk = Disk()
    disk.make_folder(data_dir)
    said = {each.name: getattr(network, each.name) for each in fields(network)}
    lines = [f"{name} = {json.dumps(str(value))}\n" for name, value in said.items() if value is not None]
    disk.put(data_dir, {FILE_NAME: "".join([HEAD, *lines]).encode()})


def kept(data_dir: Path) -> Network:
    """What `faos join` was told; nothing without the file. Raises SetupError."""
    file = data_dir / FILE_NAME
    return load_toml(file, Network) if file.exists() else Network()
