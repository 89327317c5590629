"""What can go wrong on the way out. Fields name files, doors and field paths, never values."""

from faos_core.errors import define

LEDGER_DAMAGED = define(
    "ledger.damaged",
    what="The egress ledger is damaged in {file} at record {index}: {problem}.",
    why="The ledger is this site's proof of what left it, so it is never repaired silently and nothing may be sent.",
    next_step="Keep a copy of the folder as evidence and see all of it with: faos ledger verify",
)
LEDGER_LOCKED = define(
    "ledger.locked",
    what="Another process writes the egress ledger in {folder}.",
    why="A ledger has one writer; a second node over the same data folder would fork the record.",
    next_step="Stop the other node (faos status shows it), or give this one its own data folder.",
)
LEDGER_UNWRITABLE = define(
    "ledger.unwritable",
    what="The egress ledger in {folder} cannot be written: {reason}.",
    why="A message that cannot be recorded first may not be sent; nothing has left.",
    next_step="Make room or repair the disk (df -h {folder}), then start the node again.",
)
LEDGER_CLOSED = define(
    "ledger.closed",
    what="The egress ledger in {folder} is closed.",
    why="The node is stopping; nothing more may be sent.",
    next_step="Start the node again.",
)
DOOR_UNKNOWN = define(
    "egress.door_unknown",
    what="Nothing may leave through the door {door!r}: there is no such door.",
    why="Only doors of the registry, within the site's ceiling, lead out of the node.",
    next_step="Report this as a defect: data_plane/egress/doors.py lists the doors.",
)
FIELD_UNCLASSIFIED = define(
    "egress.field_unclassified",
    what="{message}.{field} may not leave through the door {door!r}: its schema gives it no data class that fits.",
    why="Only fields with a data class leave; text is never OPERATIONAL.",
    next_step="Report this as a defect; nothing was sent.",
)
ABOVE_CEILING = define(
    "egress.above_ceiling",
    what="{message}.{field} is {data_class}, above the ceiling of the door {door!r} ({ceiling}).",
    why="The site's ceiling says what may leave at most.",
    next_step="If the site wants this to leave, change [doors] in site.toml at the site; nothing was sent.",
)
IDENTIFIER_UNKNOWN = define(
    "egress.identifier_unknown",
    what="{message}.{field} carries a value, for the door {door}, that is no identifier known to this node.",
    why="Only names of the running revision, ids that this node made, and what the control plane sent may leave.",
    next_step="Report this as a defect; nothing was sent.",
)
ENDPOINT_UNREACHABLE = define(
    "egress.endpoint_unreachable",
    what="The endpoint {endpoint!r} of site.toml did not answer ({reason}).",
    why="There was no connection, it broke, or its certificate does not hold under the authorities named there.",
    next_step="Check that it runs, and url and ca_file of [endpoints.{endpoint}] in site.toml.",
)
ENDPOINT_REDIRECTS = define(
    "egress.endpoint_redirects",
    what="The endpoint {endpoint!r} of site.toml sends us elsewhere (HTTP {status}).",
    why="Redirects are not followed: only the site says where anything goes.",
    next_step="Put the final address at url of [endpoints.{endpoint}] in site.toml.",
)
ENDPOINT_ELSEWHERE = define(
    "egress.endpoint_elsewhere",
    what="A request through the door {door!r} was not for the endpoint {endpoint!r}.",
    why="Only URLs under the one that site.toml names may be asked; nothing was sent.",
    next_step="Report this as a defect; nothing was sent.",
)
