"""Which ports of this machine the control plane listens on."""

import secrets
import socket

from faos_cli.up.errors import ENROLLED_PORT_OTHER, ENROLLED_PORT_TAKEN, PORT_TAKEN
from faos_core.errors import ConflictError

TUNNEL_PORT, ADMIN_PORT = 7443, 7444
HOST = "127.0.0.1"
LASTING = range(10_000, 20_000)  # free for applications, below every usual ip_local_port_range


def choose_tunnel_port(asked: int, *, enrolled: int, remembered: int) -> int:
    """asked, enrolled, remembered: 0 for none. An enrolled node finds its control plane where it joined it, so there
    that port it is. Raises ConflictError."""
    if enrolled and asked not in (0, enrolled):
        raise ConflictError(ENROLLED_PORT_OTHER, enrolled=enrolled, port=asked)
    if enrolled and not is_free(enrolled):
        raise ConflictError(ENROLLED_PORT_TAKEN, port=enrolled)
    return enrolled or choose(asked, remembered or TUNNEL_PORT, option="--tunnel-port")


def choose_admin_port(asked: int, *, remembered: int, but: int) -> int:
    """but: a port that is spoken for. Raises ConflictError."""
    return choose(asked, remembered or ADMIN_PORT, option="--admin-port", but=but)


def choose(asked: int, preferred: int, *, option: str, but: int = 0) -> int:
    """The port asked for, or nothing; else the preferred one, or any free one. Raises ConflictError."""
    if asked and (asked == but or not is_free(asked)):
        raise ConflictError(PORT_TAKEN, port=asked, option=option)
    wanted = asked or preferred
    return wanted if wanted != but and is_free(wanted) else any_free(but)


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no owner
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def any_free(but: int = 0) -> int:
    """A node looks for its control plane there for years, so it is none that the kernel gives to whoever dials."""
    while True:
        port = LASTING.start + secrets.randbelow(len(LASTING))
        if port != but and is_free(port):
            return port
