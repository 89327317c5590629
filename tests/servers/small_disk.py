"""A disk that can be full, for an ordinary user: a tmpfs of a mount namespace, reached through its holder in /proc.

Real ENOSPC from the kernel, also for what runs in the test's own process; gone when the context is left. Not for
SQLite, which follows links itself and loses its way at /proc: its process must live in the namespace.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

READY = "mounted"
PLACE = "/mnt"  # there on every Linux (FHS 3.0 section 3.12)
FILLER = "filler"
PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """Its `folder` is short, so that a Unix socket fits below it."""

    folder: Path

    def fill(self) -> None:
        """Take all room that is left, to the last byte. Idempotent."""
        with (self.folder / FILLER).open("ab", buffering=0) as filler, suppress(OSError):
            piece = PIECE_BYTES
            while piece:
                try:
                    filler.write(b"\0" * piece)
                except OSError:
                    piece //= 2

    def free(self) -> None:
        """Give it back."""
        (self.folder / FILLER).unlink(missing_ok=True)


@contextmanager
def small_disk(size_bytes: int) -> Iterator[SmallDisk]:
    """A file system of this size. Needs the part "namespaces"."""
    script = f"mount -t tmpfs -o size={size_bytes} none {PLACE} && echo {READY} && exec sleep infinity"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline().strip() == READY
            yield SmallDisk(Path(f"/proc/{holder.pid}/root{PLACE}"))
        finally:
            holder.kill()
