"""Settings of a node's process: `node.toml` and FAOS_NODE_* variables. What the site allows is not here: site.toml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_plane.events.limits import SpoolLimits
from data_plane.network import Network, kept
from data_plane.telemetry.settings import TelemetrySettings
from faos_core.logs import LogFormat, LogLevel
from faos_core.settings import from_environment, load_toml

PREFIX = "FAOS_NODE_"


@dataclass(frozen=True, slots=True)
class ApplyTimes:
    """How long each part of applying a configuration may take, in seconds."""

    soak_s: float = 30.0  # watched after activation, before it becomes last known good
    verify_s: float = 120.0  # fetching what the offer did not carry included
    activate_s: float = 900.0  # loading models and embedding documents included
    stuck_s: float = 30.0  # after so long in one phase, a newer offer goes first

    def __post_init__(self) -> None:
        if self.soak_s < 0 or min(self.verify_s, self.activate_s, self.stuck_s) <= 0:
            raise ValueError("Times must be positive; the soak may be 0.")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`node.toml`, parsed; every path absolute."""

    data_dir: Path  # identity, configuration, ledger and sealed store; mode 0700, on a local file system
    site_file: Path | None = None  # the site's ceiling; None: site.toml in data_dir
    database_url: str | None = field(default=None, repr=False)  # of SQLAlchemy; None: node.db in data_dir
    proxy: str | None = field(default=None, repr=False)  # URL; "" for none; None: what `faos join --proxy` was told
    proxy_credentials_file: Path | None = None  # user:password; belongs to `proxy`
    ca_dir: Path | None = None  # PEM files; None: what `faos join --ca-dir` was told
    log_format: LogFormat = LogFormat.JSON
    log_level: LogLevel = LogLevel.INFO
    dial_again_s: float = 120.0  # at most so long, drawn at random, between two attempts to reach the control plane
    apply: ApplyTimes = field(default_factory=ApplyTimes)
    events: SpoolLimits = field(default_factory=SpoolLimits)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    def __post_init__(self) -> None:
        if self.dial_again_s < 1:
            raise ValueError("dial_again_s must be at least 1 second.")

    @property
    def ceiling_path(self) -> Path:
        return self.site_file or self.data_dir / "site.toml"

    def network(self) -> Network:
        """What these settings say, and where they say nothing, what `faos join` kept. Blocking. Raises SetupError."""
        before = kept(self.data_dir)
        ca_dir = self.ca_dir or before.ca_dir
        if self.proxy is None:
            return Network(before.proxy, self.proxy_credentials_file or before.proxy_credentials_file, ca_dir)
        return Network(self.proxy, self.proxy_credentials_file, ca_dir)


def load_settings(path: Path, environment: Mapping[str, str]) -> NodeSettings:
    """The settings of a file; FAOS_NODE_DATA_DIR and its like win over it. Raises SetupError by file and key."""
    return load_toml(path, NodeSettings, environment=environment, prefix=PREFIX)


def settings_without_file(data_dir: Path, environment: Mapping[str, str]) -> NodeSettings:
    """The defaults with FAOS_NODE_* variables over them. Raises SetupError."""
    return from_environment(NodeSettings, environment, PREFIX, data_dir=data_dir)
