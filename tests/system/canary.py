"""A string that must not leave, every form in which it could, and a search for all of them."""

import base64
import gzip
import json
import logging
import secrets
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

PLANTED = ("plain", "hex", "url", "json", "reversed", "gzip, base64", "base64 after 0")


class Canary:
    """Two random halves, with what JSON and URLs have to escape between them."""

    def __init__(self) -> None:
        self.left, self.right = secrets.token_hex(8), secrets.token_hex(8)
        self.text = f'{self.left} "ö"/{self.right}'

    def forms(self) -> dict[str, bytes]:
        """Name → bytes; the halves stand for a text that was split."""
        found = {}
        for part, text in {"whole": self.text, "left": self.left, "right": self.right}.items():
            found |= {f"{part}, {name}": form for name, form in forms_of(text).items()}
        return found

    def planted(self) -> str:
        """The forms in one text, as a document, a tool or a person would write them."""
        forms = forms_of(self.text)
        return "\n".join(forms[name].decode() for name in PLANTED)

    def search(self, haystacks: Mapping[str, bytes]) -> list[str]:
        """Which form stands where; empty when nothing leaked."""
        forms = self.forms()
        return [
            f"{name} in {where}" for where, data in haystacks.items() for name, form in forms.items() if form in data
        ]


def forms_of(text: str) -> dict[str, bytes]:
    raw = text.encode()
    packed = gzip.compress(raw, mtime=0)
    return {
        "plain": raw,
        "utf-16": text.encode("utf-16-le"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "url": quote(text, safe="").encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "reversed": text[::-1].encode(),
        "gzip": packed[10:-8],  # without header and trailer, which say nothing
        "gzip, base64": base64.b64encode(packed),
        **dict(base64_forms(raw)),
    }


def base64_forms(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Standing alone, and as the middle of something longer, whose length before it decides the letters."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 if before else 0 : -4]
        yield f"base64 after {before}", inner
        yield f"base64url after {before}", inner.translate(bytes.maketrans(b"+/", b"-_"))


def files_below(folder: Path, *, apart_from: Iterable[Path] = ()) -> dict[str, bytes]:
    """Content and name of every file."""
    planted = tuple(apart_from)
    found = {}
    for file in folder.rglob("*"):
        if any(file.is_relative_to(path) for path in planted):
            continue
        content = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
        found[str(file.relative_to(folder))] = str(file.relative_to(folder)).encode() + b"\n" + content
    return found


class EveryLogLine(logging.Handler):
    """Everything that any logger said, with all fields and with what exceptions say."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {vars(record)}")
        if record.exc_info and record.exc_info[1]:
            self.lines += traceback.format_exception(record.exc_info[1])

    def __enter__(self) -> "EveryLogLine":
        self._level = logging.root.level
        logging.root.addHandler(self)
        logging.root.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *unused: object) -> None:
        logging.root.removeHandler(self)
        logging.root.setLevel(self._level)
