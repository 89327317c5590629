"""Documents of a folder as text. Plain text and Markdown; everything else is left out and said so."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".txt", ".md", ".markdown"})
MAX_DOCUMENT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What was found: text by path relative to the folder with "/", in order of path, and what was left out."""

    documents: dict[str, str]
    skipped: tuple[str, ...]


def read_folder(folder: Path) -> FolderContents:
    """Every document below `folder`. Blocking.

    Left out and named in `skipped`: other types, more than MAX_DOCUMENT_BYTES, no UTF-8, not readable, and links
    that lead out of the folder. Hidden files and folders are passed over. Folders behind links are not entered.
    Raises OSError when the folder, or one below it, cannot be listed: what it holds must not seem deleted.
    """
    root = folder.resolve(strict=True)
    documents: dict[str, str] = {}
    skipped: list[str] = []
    for path in sorted(files_below(root)):
        name = path.relative_to(root).as_posix()
        text = read_document(path, root)
        if text is None:
            skipped.append(name)
        else:
            documents[name] = text
    return FolderContents(documents, tuple(skipped))


def files_below(root: Path) -> Iterator[Path]:
    """Files and links that are not hidden."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def read_document(path: Path, root: Path) -> str | None:
    """Its text; None for what is left out."""
    if path.suffix.lower() not in SUFFIXES:
        return None
    try:
        target = path.resolve(strict=True)
        return read_text(target) if target.is_relative_to(root) else None
    except (OSError, RuntimeError, UnicodeDecodeError):  # RuntimeError: links in a circle
        return None


def read_text(path: Path) -> str | None:
    """None for what is no regular file, or too large. Looks at what it opened, and follows no link put there since."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 — of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    return None if len(content) > MAX_DOCUMENT_BYTES else content.decode("utf-8-sig")
