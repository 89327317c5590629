"""The quickstart's site for tests: its documents, its tool's data and its ceiling, with numbers of one's own."""

import hashlib
import sys
from pathlib import Path

from tests.parts import ASSETS, ROOT

QUICKSTART = ROOT / "examples" / "quickstart"
DOCUMENT_QUESTION = "What is the number of the oxygen emergency line?"
TOOL_QUESTION = "What is the reservation number for a free bed in cardiology?"


def fill_site(folder: Path, *, document_number: int, tool_number: int) -> Path:
    """Write the site's files below `folder`; the path of its site.toml."""
    handbook = folder / "handbook"
    handbook.mkdir(parents=True, exist_ok=True)
    for page in (QUICKSTART / "handbook").glob("*.md"):
        (handbook / page.name).write_text(page.read_text().replace("{{number}}", str(document_number)))
    wards = folder / "wards.json"
    wards.write_text((QUICKSTART / "tools" / "wards.json").read_text().replace("{{number}}", str(tool_number)))
    site_toml = folder / "site.toml"
    text = (QUICKSTART / "site.toml.template").read_text()
    for marker, value in markers(handbook, wards).items():
        text = text.replace("{{" + marker + "}}", value)
    site_toml.write_text(text)
    return site_toml


def markers(handbook: Path, wards: Path) -> dict[str, str]:
    model, embedder = next(ASSETS.glob("*.gguf")), next(ASSETS.glob("*.onnx"))
    tokenizer = next(ASSETS.glob("*.tokenizer.json"))
    return {
        "model": str(model),
        "model_sha256": digest(model),
        "embedder": str(embedder),
        "embedder_sha256": digest(embedder),
        "tokenizer": str(tokenizer),
        "tokenizer_sha256": digest(tokenizer),
        "handbook": str(handbook),
        "wards": str(wards),
        "quickstart": str(QUICKSTART),
        "python": sys.executable,
    }


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
