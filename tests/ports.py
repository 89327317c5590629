"""Ports that only this test process uses, of all that run on this machine."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import count, cycle
from pathlib import Path

FIRST, BLOCKS, EACH = 20_000, 24, 500  # below the ports that the kernel gives to anybody who dials
FOLDER = Path(tempfile.gettempdir()) / f"faos-test-ports-{os.getuid()}"


def own_port() -> int:
    """A free port that is found free again: by a server that starts a second from now, or starts anew. The kernel may
    give a port of its ephemeral range to anybody meanwhile."""
    for port in own_ports():
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@cache
def own_ports() -> Iterator[int]:
    """Of a block that is this process's for as long as it lives, again and again."""
    FOLDER.mkdir(exist_ok=True)
    for block in count():
        lock = os.open(FOLDER / f"{block % BLOCKS}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if block < BLOCKS else 0))
        except BlockingIOError:
            os.close(lock)
        else:
            return cycle(range(start := FIRST + block % BLOCKS * EACH, start + EACH))
    raise AssertionError
