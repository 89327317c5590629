"""The few operations that durability is made of, so that a test can die between any two of them.

Every file of ours that must be whole after a crash is written through here.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

TEMPORARY = ".tmp-"


class Disk:
    """Files and folders that survive a crash. Blocking; call it from a thread. Every method may raise OSError."""

    def point(self, name: str) -> None:
        """Called before each operation that changes what a crash leaves behind. Tests crash here."""

    def write(self, path: Path, data: bytes) -> None:
        """A new file of mode 0600, its bytes on the disk; its name is not durable before `sync_folder`."""
        self.point("write")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600), "wb") as file:
            file.write(data)
            file.flush()
            self.point("fsync")
            os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces a file."""
        self.point("rename")
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        self.point("fsync folder")
        sync_folder(folder)

    def make_folder(self, folder: Path) -> None:
        """Of mode 0700, with the parents that lack, durable. Idempotent."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        self.point("mkdir")
        folder.mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(folder.parent)

    def sync_tree(self, folder: Path) -> None:
        """Make everything below a folder durable, names included."""
        for parent, _, names in os.walk(folder):
            for name in names:
                self._sync_file(Path(parent, name))
            self.sync_folder(Path(parent))

    def _sync_file(self, path: Path) -> None:
        if path.is_symlink():
            return  # its target is its name, which goes with the folder
        self.point("fsync")
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def remove(self, path: Path) -> None:
        """A file or a whole folder. Idempotent; not durable by itself, because nothing may depend on it."""
        self.point("remove")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def put(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """Files by name, each whole or absent after a crash, all durable when this returns."""
        for name, data in files.items():
            temporary = temporary_in(folder)
            self.write(temporary, data)
            self.rename(temporary, folder / name)
        if files:
            self.sync_folder(folder)

    def put_new(self, path: Path, data: bytes) -> bool:
        """As `put`, for a file that is made once: False, and nothing changed, when another process made it first."""
        temporary = temporary_in(path.parent)
        try:
            self.write(temporary, data)
            self.point("link")
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            self.remove(temporary)
        self.sync_folder(path.parent)
        return True

    def put_folder(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """A new folder of mode 0700 with these files: all or nothing after a crash, durable when this returns.

        Raises OSError where there is a folder that is not empty.
        """
        self.make_folder(folder.parent)
        temporary = temporary_in(folder.parent)
        try:
            self.point("mkdir")
            temporary.mkdir(mode=0o700)
            for name, data in files.items():
                self.write(temporary / name, data)
            self.sync_folder(temporary)
            self.rename(temporary, folder)
        finally:
            self.remove(temporary)
        self.sync_folder(folder.parent)

    def sweep(self, folder: Path) -> None:
        """Remove what a crash left half-written in a folder."""
        for path in sorted(folder.glob(f"{TEMPORARY}*")):
            self.remove(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_in(folder: Path) -> Path:
    """A fresh path in a folder, which `sweep` removes."""
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"
