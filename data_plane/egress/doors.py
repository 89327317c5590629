"""The registry of doors: every way out of the node. tests/arch/test_doors.py fails for an outbound client beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.errors import DOOR_UNKNOWN
from faos_core.errors import DeniedError

ORDER = tuple(DoorCeiling)  # lowest first; the place in it plus one is the number of the DataClass


class DoorKind(StrEnum):
    """What passes a door as one leaf."""

    GRPC = "grpc"  # one message body
    HTTP = "http"  # one request
    NOTHING = "nothing"  # nothing is said through it, so nothing is recorded


@dataclass(frozen=True, slots=True)
class Door:
    """One registered outbound client."""

    name: str
    kind: DoorKind
    opened_by: tuple[str, ...]  # modules that may construct its client
    default_ceiling: DoorCeiling  # where site.toml does not name the door
    highest_ceiling: DoorCeiling  # what no site.toml can exceed


TUNNEL = Door(
    name="tunnel",
    kind=DoorKind.GRPC,
    opened_by=("tunnel.client",),
    default_ceiling=DoorCeiling.IDENTIFIER,
    highest_ceiling=DoorCeiling.IDENTIFIER,  # customer data never goes to the control plane
)

REMOTE_MODEL = Door(
    name="remote-model",
    kind=DoorKind.HTTP,
    opened_by=(
        "data_plane.egress.http_door",
        "data_plane.egress.httpx_transport",
        "data_plane.egress.pinned_resolver",
        "data_plane.egress.proxied_connector",
        "data_plane.models.ollama",
    ),
    default_ceiling=DoorCeiling.CUSTOMER,  # each endpoint says how much of it may pass
    highest_ceiling=DoorCeiling.CUSTOMER,
)

PROXY = Door(
    name="proxy",
    kind=DoorKind.HTTP,  # a CONNECT each; what goes through the connection then is another door's
    opened_by=("data_plane.egress.proxy", "data_plane.egress.relay"),
    default_ceiling=DoorCeiling.IDENTIFIER,  # host and port of the destination
    highest_ceiling=DoorCeiling.IDENTIFIER,
)

TLS_PROBE = Door(
    name="tls-probe",
    kind=DoorKind.NOTHING,  # a handshake with who should be the control plane, to see who is
    opened_by=("data_plane.egress.tls_probe",),
    default_ceiling=DoorCeiling.OPERATIONAL,
    highest_ceiling=DoorCeiling.OPERATIONAL,
)

MCP_HTTP = Door(
    name="mcp-http",
    kind=DoorKind.HTTP,
    opened_by=("data_plane.egress.httpx2_transport", "data_plane.tools.mcp_http"),
    default_ceiling=DoorCeiling.CUSTOMER,  # each endpoint says how much of it may pass
    highest_ceiling=DoorCeiling.CUSTOMER,
)

TELEMETRY = Door(
    name="telemetry",
    kind=DoorKind.HTTP,
    opened_by=("data_plane.egress.http_door",),
    default_ceiling=DoorCeiling.IDENTIFIER,  # times, counts, codes, and names of the running configuration
    highest_ceiling=DoorCeiling.IDENTIFIER,
)

DOORS: dict[str, Door] = {door.name: door for door in (TUNNEL, REMOTE_MODEL, MCP_HTTP, PROXY, TLS_PROBE, TELEMETRY)}


def ceiling_of(name: str, site: Mapping[str, DoorCeiling]) -> DoorCeiling:
    """Highest class that may pass: what the site says, never above what the door can have. Raises DeniedError."""
    if name not in DOORS:
        raise DeniedError(DOOR_UNKNOWN, door=name)
    door = DOORS[name]
    return min(site.get(name, door.default_ceiling), door.highest_ceiling, key=ORDER.index)
