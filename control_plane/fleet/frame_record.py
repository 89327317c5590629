"""A record of every request body that came in through the tunnel, as received: for proving what did not come.

Off unless settings name a file. Records are a 4-byte big-endian length and the body, back to back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunnel.interfaces import Recorder


@contextmanager
def open_recorder(file: Path | None) -> Iterator[Recorder | None]:
    """A recorder that appends to `file` (mode 0600) before a body is parsed; None without a file."""
    if file is None:
        yield None
        return
    file.touch(mode=0o600)
    with file.open("ab", buffering=0) as record:

        def keep(method: str, raw: bytes) -> None:
            record.write(len(raw).to_bytes(4) + raw)

        yield keep


def read_frames(file: Path) -> Iterator[bytes]:
    """Bodies in the order of their arrival; stops before one that a crash cut off."""
    data = file.read_bytes()
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if at + 4 + size > len(data):
            return
        yield data[at + 4 : at + 4 + size]
        at += 4 + size
