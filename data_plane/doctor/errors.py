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
CREDENTIALS_OPEN = define(
    "doctor.credentials_open",
    what="Other users of this machine can read {file}.",
    why="It holds the password of the proxy.",
    next_step="chmod 600 {file}",
)
