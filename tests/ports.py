"""Ports that only this test process uses."""

import os
import socket
from contextlib import suppress
from itertools import count

WORKERS, EACH, FIRST = 8, 1_000, 20_000  # below the ports that the kernel gives to anybody who dials
NEXT = count(os.getpid() % EACH)


def own_port() -> int:
    """A free port that is found free again: by a server that starts a second from now, or starts anew. The kernel may
    give a port of its ephemeral range to anybody meanwhile."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = FIRST + worker % WORKERS * EACH + next(NEXT) % EACH
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
