"""The control plane's settings: `control-plane.toml`, and FAOS_CP_* variables over it.

deploy/control-plane.toml is the commented sample; a test loads it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.telemetry.settings import TelemetrySettings
from faos_core.address import parse_address
from faos_core.logs import LogFormat, LogLevel
from faos_core.settings import load_toml

PREFIX = "FAOS_CP_"
DATABASE_FILE = "control-plane.db"
ENDPOINTS_FILE = "endpoints.json"  # where the latest start listened
ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105  # a file name


@dataclass(frozen=True, slots=True)
class ControlPlaneSettings:
    """Everything that can be set. Addresses are host:port; port 0 means a free one."""

    data_dir: Path  # keys, database and admin token; only this user may read it
    tunnel_listen: str = "0.0.0.0:7443"  # nodes come from other machines; mutual TLS guards it
    admin_listen: str = "127.0.0.1:7444"
    public_addresses: tuple[str, ...] = ()  # where nodes reach the tunnel; goes into join strings
    database_url: str | None = field(default=None, repr=False)  # of SQLAlchemy; None means a file in data_dir
    heartbeat_s: float = 15.0  # between heartbeats of an open session, 1 to 300; three missed ones end it
    node_certificate_lifetime_s: float = 24 * 3600.0  # from 2 s (for tests) to 90 days; nodes renew at half of it
    events_kept_per_node: int = 10_000  # the newest of each node, from 1; what the oldest say is gone then
    statuses_kept_per_node: int = 1000  # what became of so many of the newest revisions, from 100
    request_answers_kept_s: float = 7 * 24 * 3600.0  # the same request id gets the same answer so long; from 1 h
    received_frames_file: Path | None = None  # keep every body received through the tunnel, to prove what did not come
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.JSON
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    def __post_init__(self) -> None:
        for name in ("tunnel_listen", "admin_listen"):
            _check_address(name, getattr(self, name), lowest_port=0)
        if not 1 <= self.heartbeat_s <= 300:
            raise ValueError("heartbeat_s must be from 1 to 300.")
        if not 2 <= self.node_certificate_lifetime_s <= 90 * 24 * 3600:
            raise ValueError("node_certificate_lifetime_s must be from 2 to 7776000 (90 days).")
        if not 1 <= self.events_kept_per_node <= 10_000_000:
            raise ValueError("events_kept_per_node must be from 1 to 10000000.")
        if not 100 <= self.statuses_kept_per_node <= 10_000_000:
            raise ValueError("statuses_kept_per_node must be from 100 to 10000000.")
        if not 3600 <= self.request_answers_kept_s <= 10 * 366 * 24 * 3600:
            raise ValueError("request_answers_kept_s must be from 3600 (an hour) to 316224000 (ten years).")
        for address in self.public_addresses:
            _check_address("public_addresses", address, lowest_port=1)

    @property
    def database(self) -> str:
        """URL of the database that is used."""
        return self.database_url or f"sqlite:///{self.data_dir / DATABASE_FILE}"

    @property
    def admin_token_file(self) -> Path:
        return self.data_dir / ADMIN_TOKEN_FILE


def load_settings(path: Path, *, environment: Mapping[str, str] | None = None) -> ControlPlaneSettings:
    """The file with the environment over it; None means this process's. Raises SetupError by file and key."""
    variables = os.environ if environment is None else environment
    return load_toml(path, ControlPlaneSettings, environment=variables, prefix=PREFIX)


def _check_address(name: str, address: str, *, lowest_port: int) -> None:
    """Raises ValueError unless it is host:port or [IPv6]:port."""
    try:
        parse_address(address, lowest_port=lowest_port)
    except ValueError as error:
        raise ValueError(f"{name} {error}; {address!r} is not.") from error
