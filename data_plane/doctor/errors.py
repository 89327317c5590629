"""What the doctor finds and no other part raises."""

from faos_core.errors import define

NAME_UNKNOWN = define(
    "doctor.name_unknown",
    what="The name {host} leads to no address ({reason}).",
    why="The name service of this machine does not know it, or does not answer.",
    next_step="Look at it: getent hosts {host} — and at /etc/resolv.conf",
)
PORT_CLOSED = define(
    "doctor.port_closed",
    what="There is no connection to {address} ({reason}).",
    why="{cause}",
    next_step="Ask the network team to let this machine out to {address} (TCP), or name a proxy: faos join --proxy URL",
)
CERTIFICATE_OVER = define(
    "doctor.certificate_over",
    what="This node's certificate expired on {until}.",
    why="The node was off, or without its control plane, for longer than it holds.",
    next_step="{next_step}",
)
DATABASE_EXPOSED = define(
    "doctor.database_exposed",
    what="The connection to the node's database at {host} is not sure to end there.",
    why="Without sslmode=verify-full, whoever is in between reads names and times, and may answer in its place. "
    "What customers wrote is sealed before it goes there.",
    next_step="In node.toml, end database_url with ?sslmode=verify-full&sslrootcert=FILE",
)
CREDENTIALS_OPEN = define(
    "doctor.credentials_open",
    what="Other users of this machine can read {file}.",
    why="It holds the password of the proxy.",
    next_step="chmod 600 {file}",
)
