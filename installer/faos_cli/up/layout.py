"""Where everything of one `faos up` lies: one data folder, a folder in it for each part."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path

import faos_cli
from faos_cli.up.errors import DISK_FULL, FOLDER_UNUSABLE, QUICKSTART_MISSING
from faos_core.disk import Disk
from faos_core.errors import SetupError

NEEDED_BYTES = 200 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the data folder, which is absolute."""

    root: Path

    @property
    def control_plane(self) -> Path:
        return self.root / "control-plane"

    @property
    def frames(self) -> Path:
        """Every body that the control plane received through the tunnel."""
        return self.control_plane / "received-frames.bin"

    @property
    def node(self) -> Path:
        return self.root / "node"

    @property
    def identity(self) -> Path:
        return self.node / "identity"

    @property
    def ledger(self) -> Path:
        return self.node / "ledger"

    @property
    def site(self) -> Path:
        """The site's own files: its ceiling, its documents, its tool's data."""
        return self.root / "site"

    @property
    def handbook(self) -> Path:
        return self.site / "handbook"

    @property
    def wards(self) -> Path:
        return self.site / "wards.json"

    @property
    def ceiling(self) -> Path:
        return self.site / "site.toml"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def context(self) -> Path:
        return self.root / "context.json"

    @property
    def memory(self) -> Path:
        return self.root / "up.json"

    @property
    def lock(self) -> Path:
        return self.root / "up.lock"

    def make(self) -> None:
        """Idempotent. Raises SetupError: not writable, or too little room."""
        with told_by_path(self.root):
            for folder in (self.root, self.site, self.handbook, self.logs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self.root).free
        if free < NEEDED_BYTES:
            raise disk_full(self.root)


def quickstart() -> Path:
    """The example's folder in this checkout. Raises SetupError."""
    folder = Path(faos_cli.__file__).resolve().parents[2] / "examples" / "quickstart"
    if not folder.is_dir():
        raise SetupError(QUICKSTART_MISSING, folder=folder)
    return folder


@contextmanager
def told_by_path(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into what a person can do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise disk_full(path) from error
        reason = error.strerror or type(error).__name__
        raise SetupError(FOLDER_UNUSABLE, path=error.filename or path, reason=reason) from error


def disk_full(path: Path) -> SetupError:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return SetupError(DISK_FULL, path=path, needed_mb=NEEDED_BYTES >> 20, free_mb=free >> 20)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, mode 0600. Raises SetupError."""
    with told_by_path(path):
        Disk().put(path.parent, {path.name: text.encode()})
