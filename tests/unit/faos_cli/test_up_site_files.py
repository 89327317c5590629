"""Fresh numbers in the site's files, and the ceiling that the operator may have edited."""

import tomllib
from pathlib import Path

import pytest

from faos_cli.assets import FetchedAssets
from faos_cli.up.layout import Layout, quickstart
from faos_cli.up.site_files import make_up, write_ceiling, write_site

ASSETS = FetchedAssets(Path('/models/a "quoted" \\ name.gguf'), Path("/models/e.onnx"), Path("/models/t.json"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "d")
    made.make()
    return made


def test_each_number_stands_where_its_marker_was(layout: Layout) -> None:
    """One in the document, the other behind the tool, and never both in one place."""
    numbers = write_site(layout, quickstart())

    document, wards = (layout.handbook / "oxygen.md").read_text(), layout.wards.read_text()
    assert numbers.document in document
    assert numbers.tool not in document
    assert numbers.tool in wards
    assert numbers.document not in wards
    assert "{{" not in document + wards


def test_numbers_are_fresh_each_time_and_the_sites_own_pages_stay(layout: Layout) -> None:
    """Yesterday's answer must not pass today; the operator's documents are not ours."""
    first = write_site(layout, quickstart())
    (layout.handbook / "own.md").write_text("Ours.")
    (layout.handbook / "fire.md").write_text("Edited.")

    second = write_site(layout, quickstart())

    assert first != second
    assert (layout.handbook / "own.md").read_text() == "Ours."
    assert (layout.handbook / "fire.md").read_text() == "Edited."


def test_made_up_numbers_are_not_among_those_that_are_there() -> None:
    """A number that the handbook has anyway would prove nothing."""
    taken = " ".join(str(number) for number in range(10_000, 99_000))

    assert min(make_up(taken).document, make_up(taken).tool) >= "99000"


def test_the_ceiling_is_toml_whatever_the_paths_are(layout: Layout) -> None:
    """A folder name with a quote in it must not become syntax."""
    write_ceiling(layout, quickstart(), ASSETS, written_sha256="")

    ceiling = tomllib.loads(layout.ceiling.read_text())

    assert ceiling["models"]["smollm2"]["file"] == str(ASSETS.model)
    assert ceiling["folders"]["handbook"]["path"] == str(layout.handbook)


def test_an_edited_ceiling_is_kept_and_an_unedited_one_follows_the_software(layout: Layout) -> None:
    """It is the site's veto; but an update must reach those who never touched it."""
    digest, _ = write_ceiling(layout, quickstart(), ASSETS, written_sha256="")
    moved = FetchedAssets(Path("/elsewhere/m.gguf"), ASSETS.embedder_model, ASSETS.tokenizer)

    newer, was_edited = write_ceiling(layout, quickstart(), moved, written_sha256=digest)
    assert not was_edited
    assert "/elsewhere/m.gguf" in layout.ceiling.read_text()

    layout.ceiling.write_text(layout.ceiling.read_text() + "\n# ours\n")
    kept, was_edited = write_ceiling(layout, quickstart(), ASSETS, written_sha256=newer)
    assert was_edited
    assert kept == newer
    assert layout.ceiling.read_text().endswith("# ours\n")
