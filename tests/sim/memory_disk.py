"""A file system in memory that forgets what was not synced when the power goes, and the Disk over it.

What a crash leaves: of each name that was not made durable with its folder, the old binding or the new one; of each
file that was not synced, the old content, nothing, or a part of the new. Renames are atomic. Source: what POSIX
promises and no more; see also data_plane/link/config_store.py, whose promises this is to break.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from faos_core.disk import TEMPORARY, Disk
from tests.sim.virtual_loop import PowerCutError


class _File:
    __slots__ = ("content", "durable")

    def __init__(self, content: bytes = b"", durable: bytes = b"") -> None:
        self.content = content
        self.durable = durable


class _Folder:
    __slots__ = ("durable", "names")

    def __init__(self) -> None:
        self.names: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}


_Node = _File | _Folder


class MemoryFiles:
    """One machine's file system."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.temporaries = 0

    def path(self, *parts: str) -> "MemoryPath":
        return MemoryPath(self, parts)

    def node(self, parts: tuple[str, ...]) -> _Node | None:
        node: _Node | None = self.root
        for name in parts:
            if not isinstance(node, _Folder):
                return None
            node = node.names.get(name)
        return node

    def folder(self, parts: tuple[str, ...]) -> _Folder:
        node = self.node(parts)
        if not isinstance(node, _Folder):
            raise FileNotFoundError(errno.ENOENT, "no such folder", "/".join(parts))
        return node

    def cut_power(self, rng: Random) -> None:
        """Nothing but what is durable is certain any more."""
        _settle(self.root, rng)


def _settle(folder: _Folder, rng: Random) -> None:
    before, now = folder.durable, folder.names
    left: dict[str, _Node] = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        node = old if old is new else rng.choice((old, new))
        if node is not None:
            left[name] = node
    for node in left.values():
        if isinstance(node, _Folder):
            _settle(node, rng)
        elif node.content != node.durable:
            torn = node.content[: rng.randrange(len(node.content) + 1)]
            node.content = node.durable = rng.choice((node.durable, b"", torn, node.content))
    folder.names, folder.durable = left, dict(left)


class MemoryPath:
    """As much of pathlib.Path as the configuration store and the disk use."""

    __slots__ = ("files", "name", "parts")

    def __init__(self, files: MemoryFiles, parts: tuple[str, ...]) -> None:
        self.files = files
        self.parts = parts
        self.name = parts[-1] if parts else ""

    def __truediv__(self, name: str) -> "MemoryPath":
        if len(name) > len(TEMPORARY) + 8 and name.startswith(TEMPORARY):  # a random one: the next in a row instead
            self.files.temporaries += 1
            name = f"{TEMPORARY}{self.files.temporaries}"
        return MemoryPath(self.files, (*self.parts, name))

    def __lt__(self, other: "MemoryPath") -> bool:
        return self.parts < other.parts

    def __str__(self) -> str:
        return "/" + "/".join(self.parts)

    __fspath__ = __str__  # names nothing on the real disk
    __repr__ = __str__

    @property
    def parent(self) -> "MemoryPath":
        return MemoryPath(self.files, self.parts[:-1])

    @property
    def node(self) -> _Node | None:
        return self.files.node(self.parts)

    def exists(self) -> bool:
        return self.node is not None

    def is_dir(self) -> bool:
        return isinstance(self.node, _Folder)

    def is_file(self) -> bool:
        return isinstance(self.node, _File)

    def is_symlink(self) -> bool:
        return False

    def read_bytes(self) -> bytes:
        node = self.node
        if not isinstance(node, _File):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return node.content

    def write_bytes(self, data: bytes) -> None:
        """As a library writes that knows nothing of durability."""
        folder = self.files.folder(self.parts[:-1])
        node = folder.names.setdefault(self.name, _File())
        assert isinstance(node, _File)
        node.content = data

    def mkdir(self, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        folder = self.files.folder(self.parts[:-1])
        if self.name in folder.names and not exist_ok:
            raise FileExistsError(errno.EEXIST, "exists", str(self))
        folder.names.setdefault(self.name, _Folder())

    def iterdir(self) -> Iterator["MemoryPath"]:
        names = sorted(self.files.folder(self.parts).names)
        return iter([MemoryPath(self.files, (*self.parts, name)) for name in names])

    def glob(self, pattern: str) -> Iterator["MemoryPath"]:
        prefix = pattern.removesuffix("*")
        return (path for path in self.iterdir() if path.name.startswith(prefix))


@dataclass
class MemoryDisk(Disk):
    """The disk as one life of a process sees it.

    cut_in: operations until the process or the power goes, None for never. fail_in: operations until `failing` of
    them fail with ENOSPC.
    """

    files: MemoryFiles
    is_dead: bool = False
    cut_in: int | None = None
    fail_in: int | None = None
    failing: int = 0
    faults: list[str] = field(default_factory=list)  # every error that it raised

    def point(self, name: str) -> None:
        if self.is_dead:
            raise PowerCutError
        if self.cut_in is not None:
            self.cut_in -= 1
            if self.cut_in < 0:
                self.is_dead = True
                raise PowerCutError
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.failing -= 1
                self.fail_in = 0 if self.failing > 0 else None
                self.faults.append(name)
                raise OSError(errno.ENOSPC, "no space left on device", name)

    def write(self, path: Any, data: bytes) -> None:
        self.point("write")
        folder = self.files.folder(path.parts[:-1])
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        file = folder.names[path.name] = _File(data)
        self.point("fsync")
        file.durable = data

    def rename(self, source: Any, target: Any) -> None:
        self.point("rename")
        there = target.node
        if isinstance(there, _Folder) and there.names:
            raise OSError(errno.ENOTEMPTY, "folder not empty", str(target))
        node = self.files.folder(source.parts[:-1]).names.pop(source.name)
        self.files.folder(target.parts[:-1]).names[target.name] = node

    def sync_folder(self, folder: Any) -> None:
        self.point("fsync folder")
        node = self.files.folder(folder.parts)
        node.durable = dict(node.names)

    def sync_tree(self, folder: Any) -> None:
        for path in folder.iterdir():
            node = path.node
            if isinstance(node, _File):
                self.point("fsync")
                node.durable = node.content
            else:
                self.sync_tree(path)
        self.sync_folder(folder)

    def remove(self, path: Any) -> None:
        self.point("remove")
        self.files.folder(path.parts[:-1]).names.pop(path.name, None)
