import os
from pathlib import Path

import pytest

from data_plane.memory import readers
from data_plane.memory.readers import read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    (root / "deep").mkdir(parents=True)
    (root / "fire.md").write_text("Use the stairs.")
    (root / "deep" / "oxygen.TXT").write_text("\ufeffClose the valve.", encoding="utf-8")
    return root


def test_text_is_read_by_path_relative_to_the_folder(folder: Path) -> None:
    """The path is what a person sees as the source of an answer."""
    assert read_folder(folder).documents == {"deep/oxygen.TXT": "Close the valve.", "fire.md": "Use the stairs."}


def test_what_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that is silently missing from the answers is the hardest fault to find."""
    monkeypatch.setattr(readers, "MAX_DOCUMENT_BYTES", 20)
    (folder / "plan.pdf").write_bytes(b"%PDF")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "huge.md").write_text("x" * 21)
    (folder / "ring.md").symlink_to("ring.md")
    os.mkfifo(folder / "pipe.md")

    contents = read_folder(folder)

    assert contents.skipped == ("huge.md", "latin.txt", "pipe.md", "plan.pdf", "ring.md")
    assert set(contents.documents) == {"deep/oxygen.TXT", "fire.md"}


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    """Whoever may write into the folder must not make the node read what else its user can read."""
    (tmp_path / "secret.md").write_text("root:x:0:0")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "more.md").write_text("root:x:0:0")
    (folder / "innocent.md").symlink_to(tmp_path / "secret.md")
    (folder / "linked").symlink_to(tmp_path / "secrets")
    (folder / "same.md").symlink_to("fire.md")

    contents = read_folder(folder)

    assert "innocent.md" in contents.skipped
    assert contents.documents["same.md"] == "Use the stairs."
    assert not any("root" in text for text in contents.documents.values())


def test_hidden_files_are_passed_over(folder: Path) -> None:
    """Editors and version control keep copies there that nobody meant as knowledge."""
    (folder / ".git").mkdir()
    (folder / ".git" / "notes.md").write_text("old")
    (folder / ".draft.md").write_text("draft")

    contents = read_folder(folder)

    assert set(contents.documents) == {"deep/oxygen.TXT", "fire.md"}
    assert contents.skipped == ()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """Taken for an empty one, it would delete everything that was learnt from it."""
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "unmounted")
