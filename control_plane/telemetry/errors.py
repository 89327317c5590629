"""What can go wrong with the control plane's telemetry: never with what it tells about."""

from faos_core.errors import define

COLLECTOR_REFUSED = define(
    "telemetry.collector_refused",
    what="The collector did not take what the control plane tells of itself.",
    why="It answered with HTTP status {status}.",
    next_step="Look at `endpoint` under [telemetry] in control-plane.toml, and at the collector's own log.",
)
COLLECTOR_UNREACHABLE = define(
    "telemetry.collector_unreachable",
    what="The collector cannot be reached.",
    why="{reason}",
    next_step="Look at `endpoint` under [telemetry] in control-plane.toml. Nothing else suffers.",
)
