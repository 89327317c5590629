"""Looking for a number in bytes, however it may have been written down. Pure.

A plain number inside a longer number (a timestamp) or inside 16 or more hexadecimal digits (a digest, an id) is a
coincidence and is counted apart: in a few hundred kilobytes of those, any five digits turn up about once in a
hundred runs. The same holds for what base64 stands for: a certificate's is full of dates.
"""

import base64
import contextlib
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

URL_ESCAPE = re.compile(rb"%[0-9a-fA-F]{2}")
JSON_ESCAPE = re.compile(rb"\\u[0-9a-fA-F]{4}")
GZIP = b"\x1f\x8b\x08"
UNPACKED_BYTES = 16 << 20
DIGITS = b"0123456789"
DIGEST_DIGITS = 16  # or more
LONGER_BEFORE = re.compile(rb"[0-9a-fA-F]+\Z")
LONGER_AFTER = re.compile(rb"[0-9a-fA-F]+")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]*")
BASE64_BEFORE = re.compile(rb"[A-Za-z0-9+/_-]*\Z")
LINE_ENDS = re.compile(rb"\\[rn]|[\r\n]")  # of PEM, as they are or as JSON escapes them
AROUND = 80  # characters of base64, a line end among them; more than DIGEST_DIGITS need
EXACT = ("base", "double", "utf")  # names of encodings in which letters are not of either case


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a number stands."""

    where: str
    offset: int  # within what was searched under that name
    encoding: str


@dataclass(frozen=True, slots=True)
class Search:
    """What a search came to."""

    searched_bytes: int
    files: int
    found: tuple[Finding, ...]
    coincidences: int  # inside longer numbers

    @property
    def is_clean(self) -> bool:
        return not self.found


def encodings(number: str) -> dict[str, bytes]:
    """The ways of writing a number of decimal digits, by name; "plain" is first."""
    raw = number.encode()
    ways = {
        "plain": raw,
        "hex": raw.hex().encode(),
        "url": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "json-escaped": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "html": "".join(f"&#{byte};" for byte in raw).encode(),
        "utf-16-le": number.encode("utf-16-le"),
        "utf-16-be": number.encode("utf-16-be"),
        "double-le": struct.pack("<d", float(number)),  # as protobuf's Struct holds a number
        "double-be": struct.pack(">d", float(number)),
        "base32": base64.b32encode(raw),
    }
    return ways | {f"base64-{shift}": base64_core(raw, shift) for shift in range(3)}


def base64_core(raw: bytes, shift: int) -> bytes:
    """What is common to every base64 text in which `raw` stands `shift` bytes after a group of three began."""
    last = (shift + len(raw)) * 8 // 6
    return base64.b64encode(b"\0" * shift + raw)[core_begins(shift) : last]


def core_begins(shift: int) -> int:
    """Characters of the group of four before the first that the number alone decides."""
    return -(-shift * 8 // 6)


def search(blobs: Iterable[tuple[str, bytes]], numbers: Sequence[str]) -> Search:
    """Look for each number in each named blob, and in what it holds in other forms."""
    found: list[Finding] = []
    size = files = coincidences = 0
    for where, data in blobs:
        size, files = size + len(data), files + 1
        for text in (data, *rewritten(data)):
            for finding, is_coincidence in places(where, text, numbers):
                coincidences += is_coincidence and text is data
                found += [] if is_coincidence else [finding]
    return Search(size, files, tuple(found), coincidences)


def places(where: str, text: bytes, numbers: Sequence[str]) -> Iterator[tuple[Finding, bool]]:
    """Each place, and whether it is a coincidence. Hexadecimal digits may be of either case."""
    lowered = text.lower()
    for number in numbers:
        for name, raw in encodings(number).items():
            hay = text if name.startswith(EXACT) else lowered
            for at in occurrences(hay, raw):
                near, start = surroundings(text, at, name)
                end = start + len(number)
                if name.startswith("base64") and len(near) >= end and near[start:end] != number.encode():
                    continue  # a core leaves a few bits of the number open
                yield Finding(where, at, name), is_inside_longer(near, start, end)


def occurrences(text: bytes, raw: bytes) -> Iterator[int]:
    at = text.find(raw)
    while at != -1:
        yield at
        at = text.find(raw, at + 1)


def surroundings(text: bytes, at: int, encoding: str) -> tuple[bytes, int]:
    """What tells whether a place is inside of something longer, and where the number begins in it; nothing where the
    encoding does not tell."""
    if encoding.startswith("base64"):
        return unpacked_around(text, at, int(encoding[-1]))
    return (text, at) if encoding == "plain" else (b"", 0)


def unpacked_around(text: bytes, at: int, shift: int) -> tuple[bytes, int]:
    """What the base64 around a core at this place stands for, and where the number begins in it; nothing where the
    core is all that there is of it."""
    group = at - core_begins(shift)
    if group < 0:
        return b"", 0
    ahead = LINE_ENDS.sub(b"", text[max(0, group - AROUND) : group])
    before, after = BASE64_BEFORE.search(ahead), BASE64.match(LINE_ENDS.sub(b"", text[group : group + AROUND]))
    assert before
    assert after  # both match nothing, too
    if len(after[0]) <= at - group:
        return b"", 0
    kept = before[0][len(before[0]) % 4 :]
    whole = (kept + after[0]).translate(bytes.maketrans(b"-_", b"+/"))
    unpacked = base64.b64decode(whole + b"A" * (-len(whole) % 4))[: len(whole) * 6 // 8]
    return unpacked, len(kept) * 6 // 8 + shift


def is_inside_longer(text: bytes, start: int, end: int) -> bool:
    """See the head of this module."""
    if any(byte in DIGITS for byte in (text[max(0, start - 1) : start], text[end : end + 1]) if byte):
        return True
    before = LONGER_BEFORE.search(text[max(0, start - DIGEST_DIGITS) : start])
    after = LONGER_AFTER.match(text[end : end + DIGEST_DIGITS])
    around = (before.end() - before.start() if before else 0) + (after.end() if after else 0)
    return around + end - start >= DIGEST_DIGITS


def rewritten(data: bytes) -> Iterator[bytes]:
    """The same without the escapes of URLs and JSON, which hide where a number begins ("%2048213", "\\u00e948213"),
    and what is gzipped inside."""
    if URL_ESCAPE.search(data):
        yield unquote_to_bytes(data)
    if JSON_ESCAPE.search(data):
        yield JSON_ESCAPE.sub(b" ", data)
    at = data.find(GZIP)
    while at != -1:
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(wbits=31).decompress(data[at:], UNPACKED_BYTES)
        at = data.find(GZIP, at + 1)


def finds_what_is_planted(sample: bytes, numbers: Sequence[str]) -> bool:
    """Whether the search would have found each number in each encoding, between bytes of the sample."""
    middle = len(sample) // 2
    for number in numbers:
        for name, raw in {**encodings(number), "gzip": zlib.compress(number.encode(), wbits=31)}.items():
            planted = sample[:middle] + b"|" + raw + b"|" + sample[middle:]
            wanted = "plain" if name == "gzip" else name
            if wanted not in {each.encoding for each in search([("planted", planted)], [number]).found}:
                return False
    return True


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, whole; one that goes away meanwhile, its folder too, is left out."""
    for path in sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        try:
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes()
        except FileNotFoundError:
            continue
