"""What one `faos up` tells the next in the same data folder, and the lock between two at once."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from faos_cli.up.errors import ALREADY_UP
from faos_cli.up.layout import Layout, told_by_path, write_whole
from faos_core.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Memory:
    """Nothing in it is precious: without it, defaults are taken."""

    admin_port: int = 0  # 0: none yet
    tunnel_port: int = 0
    ceiling_sha256: str = ""  # of site.toml as it was last written here; another digest: somebody edited it
    begun: bool = False
    finished: bool = False  # whether that run got as far as its answers


def recall(layout: Layout) -> Memory:
    """The last run's memory; an empty one when there is none or it cannot be read."""
    try:
        values = json.loads(layout.memory.read_text())
        return Memory(**{key: kind(values[key]) for key, kind in Memory.__annotations__.items()})
    except (OSError, ValueError, KeyError, TypeError):
        return Memory()


def remember(layout: Layout, memory: Memory) -> None:
    write_whole(layout.memory, json.dumps(asdict(memory), indent=1) + "\n")


def enrolled_port(layout: Layout) -> int:
    """Where the node here looks for its control plane; 0 when it has not joined or its identity cannot be read
    (the node itself says so then)."""
    try:
        facts: dict[str, Any] = json.loads((layout.identity / "identity.json").read_text())
        return int(str(facts["addresses"][0]).rpartition(":")[2])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return 0


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """One at a time per data folder; the kernel lets go when the process ends, however it does.

    Raises ConflictError that names the other process.
    """
    with told_by_path(layout.lock), os.fdopen(os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = lock.read().strip() or "?"
            raise ConflictError(ALREADY_UP, directory=layout.root, pid=pid) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
