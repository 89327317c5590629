"""The quickstart's site: its documents and its tool's data with fresh numbers in them, and its ceiling."""

import hashlib
import json
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from faos_cli.assets import FetchedAssets
from faos_cli.up.layout import Layout, told_by_path, write_whole

MARKER = "{{number}}"
DOCUMENT = "oxygen.md"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Five digits each, made up for this run: no model can know them."""

    document: str
    tool: str


def make_up(taken: str) -> Numbers:
    """Two numbers that differ from each other and from every one in `taken`, a text."""
    chosen: list[str] = []
    while len(chosen) < 2:
        number = str(10_000 + secrets.randbelow(90_000))
        if number not in taken and number not in chosen:
            chosen.append(number)
    return Numbers(*chosen)


def write_site(layout: Layout, quickstart: Path) -> Numbers:
    """Put fresh numbers where the markers are. Pages that hold none are copied once; more may lie beside them.

    Raises SetupError.
    """
    pages = {page.name: page.read_text(encoding="utf-8") for page in sorted(quickstart.glob("handbook/*.md"))}
    data = (quickstart / "tools" / "wards.json").read_text(encoding="utf-8")
    numbers = make_up("".join(pages.values()) + data)
    for name, text in pages.items():
        page = layout.handbook / name
        if MARKER in text or not page.exists():
            write_whole(page, text.replace(MARKER, numbers.document))
    write_whole(layout.wards, data.replace(MARKER, numbers.tool))
    return numbers


def write_ceiling(layout: Layout, quickstart: Path, assets: FetchedAssets, *, written_sha256: str) -> tuple[str, bool]:
    """site.toml with this machine's paths, unless somebody edited it since: then it stays.

    written_sha256: of the one that was written last; "" for none. Answers the digest to remember, and whether an
    edited file was kept. Raises SetupError.
    """
    text = (quickstart / "site.toml.template").read_text(encoding="utf-8")
    for marker, value in markers(layout, quickstart, assets).items():
        text = text.replace("{{" + marker + "}}", json.dumps(value)[1:-1])  # JSON's escapes are TOML's
    if layout.ceiling.exists():
        with told_by_path(layout.ceiling):
            there = sha256_of(layout.ceiling.read_bytes())
        if there not in (written_sha256, sha256_of(text.encode())):
            return written_sha256, True
    write_whole(layout.ceiling, text)
    return sha256_of(text.encode()), False


def markers(layout: Layout, quickstart: Path, assets: FetchedAssets) -> dict[str, str]:
    return {
        "model": str(assets.model),
        "model_sha256": assets.model_sha256,
        "embedder": str(assets.embedder_model),
        "embedder_sha256": assets.embedder_model_sha256,
        "tokenizer": str(assets.tokenizer),
        "tokenizer_sha256": assets.tokenizer_sha256,
        "handbook": str(layout.handbook),
        "wards": str(layout.wards),
        "quickstart": str(quickstart),
        "python": sys.executable,
    }


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
