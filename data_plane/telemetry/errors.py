"""What can go wrong with the node's telemetry: never with what it tells about."""

from faos_core.errors import define

ENDPOINT_UNKNOWN = define(
    "telemetry.endpoint_unknown",
    what="The node is to tell a collector {endpoint!r} of itself, which this site does not have.",
    why="There is no [endpoints.{endpoint}] in {file}.",
    next_step="Add it there, or correct `endpoint` under [telemetry] in node.toml.",
)
COLLECTOR_REFUSED = define(
    "telemetry.collector_refused_node",
    what="The collector {endpoint!r} did not take what the node tells of itself.",
    why="It answered with HTTP status {status}.",
    next_step="Look at the url of [endpoints.{endpoint}] in site.toml, and at the collector's own log.",
)
