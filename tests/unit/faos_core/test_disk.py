"""What is written durably is whole or absent, whenever the process dies."""

import stat
from pathlib import Path

import pytest

from faos_core.disk import TEMPORARY, Disk

FILES = {"a.key": b"secret", "a.pem": b"certificate"}


class DiedError(Exception):
    """Stands for the end of the process: nothing after it happens."""


class DyingDisk(Disk):
    """Dies at the n-th operation. What a `finally` would tidy up then stays, as after a real end."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._dead = False

    def point(self, name: str) -> None:
        self._left -= 1
        if self._dead or self._left < 0:
            self._dead = True
            raise DiedError(name)


def operations(work: str, folder: Path) -> int:
    """How many points the work passes when nothing happens to it."""
    counted = DyingDisk(1000)
    perform(counted, work, folder)
    return 1000 - counted._left


def perform(disk: Disk, work: str, folder: Path) -> None:
    match work:
        case "put":
            disk.make_folder(folder)
            disk.put(folder, {"file": b"new"})
        case "put_new":
            disk.make_folder(folder)
            disk.put_new(folder / "file", b"new")
        case "put_folder":
            disk.put_folder(folder, FILES)


def visible(folder: Path) -> dict[str, bytes]:
    """Files under their own names."""
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}


@pytest.mark.parametrize(
    ("work", "whole"), [("put", {"file": b"new"}), ("put_new", {"file": b"new"}), ("put_folder", FILES)]
)
def test_death_at_any_operation_leaves_all_or_nothing(work: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Half a key file under its real name would be read as the key at the next start."""
    count = operations(work, tmp_path / "counted" / "folder")
    assert count >= 5
    seen = []

    for at in range(count):
        folder = tmp_path / str(at) / "folder"
        with pytest.raises(DiedError):
            perform(DyingDisk(at), work, folder)
        seen.append(visible(folder))

    assert all(content in ({}, whole) for content in seen)
    assert {} in seen
    assert whole in seen  # it died after the name was there, before it was durable


@pytest.mark.parametrize(("work", "whole"), [("put_new", {"file": b"new"}), ("put_folder", FILES)])
def test_second_attempt_after_a_death_succeeds(work: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    """What a crash leaves behind must not stand in the way of the next start."""
    for at in range(operations(work, tmp_path / "counted" / "folder")):
        folder = tmp_path / str(at) / "folder"
        with pytest.raises(DiedError):
            perform(DyingDisk(at), work, folder)
        if not visible(folder):
            perform(Disk(), work, folder)

        assert visible(folder) == whole


def test_file_that_is_there_stands(tmp_path: Path) -> None:
    """Two processes that start at once must end with one key."""
    first = Disk().put_new(tmp_path / "key", b"first")
    second = Disk().put_new(tmp_path / "key", b"second")

    assert (first, second) == (True, False)
    assert visible(tmp_path) == {"key": b"first"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_folder_with_content_is_not_replaced(tmp_path: Path) -> None:
    """A second authority over the first would cut off every node."""
    Disk().put_folder(tmp_path / "ca", FILES)

    with pytest.raises(OSError, match="not empty"):
        Disk().put_folder(tmp_path / "ca", {"a.key": b"other"})

    assert visible(tmp_path / "ca") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


@pytest.mark.parametrize("work", ["put", "put_new", "put_folder"])
def test_only_the_owner_may_read(work: str, tmp_path: Path) -> None:
    """Keys and tokens go through here."""
    perform(Disk(), work, tmp_path / "folder")

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "folder").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def test_sweep_removes_what_was_half_written_and_nothing_else(tmp_path: Path) -> None:
    """Temporary files would pile up, and some hold keys."""
    Disk().put(tmp_path, {"file": b"kept"})
    with pytest.raises(DiedError):
        DyingDisk(1).put(tmp_path, {"file": b"lost"})
    assert len(list(tmp_path.iterdir())) == 2

    Disk().sweep(tmp_path)

    assert visible(tmp_path) == {"file": b"kept"}
    assert len(list(tmp_path.iterdir())) == 1
