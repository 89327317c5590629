"""The ledger on disk: how one record is framed, and how a folder of segments is walked.

A segment `<first index, 20 digits>.seg` is `FAOSLDG1`, the first index (u64) and a CRC-32 of those 16 bytes, then
records. A record is header length, body length (u32 each) and a CRC-32 over lengths, header and body; then the header
(canonical JSON) and the body, the very bytes that were sent. Numbers are big-endian. The Merkle leaf is the header
alone, which holds the body's SHA-256: a body may be dropped (its length set to 0) while the hashes stay for ever.

`ledger_verifier.py` reads the same format on its own; change both together.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, BinaryIO

from data_plane.egress.errors import LEDGER_DAMAGED
from data_plane.egress.interfaces import Leaf
from faos_core.errors import IntegrityError

SEGMENT_MAGIC = b"FAOSLDG1"
SEGMENT_START = struct.Struct(">8sQ")
CRC = struct.Struct(">I")
SEGMENT_HEADER_BYTES = SEGMENT_START.size + CRC.size
LENGTHS = struct.Struct(">II")
FRAME_BYTES = LENGTHS.size + CRC.size


class TornTailError(Exception):
    """The walk reached a record that a crash left unfinished, past everything that was acknowledged."""

    def __init__(self, segment: Path, index: int, offset: int) -> None:
        self.segment, self.index, self.offset = segment, index, offset
        super().__init__(f"{segment.name}: record {index} is unfinished at byte {offset}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies on disk."""

    segment: Path
    index: int
    end: int  # byte offset in the segment after it
    header: bytes
    body: bytes


def damaged(file: Path, index: int, problem: str) -> IntegrityError:
    return IntegrityError(LEDGER_DAMAGED, file=file.name, index=index, problem=problem)


def segment_name(first_index: int) -> str:
    return f"{first_index:020d}.seg"


def segments(folder: Path) -> list[Path]:
    """In the order of their records, complete up to the last one; the node may be adding to them.

    A folder is not listed in one instant: a listing may hold a new segment and miss the one before it. A second
    listing, begun when the newest was there, misses none before that.
    """
    newest = max((path.name for path in folder.glob("*.seg")), default="")
    return sorted(path for path in folder.glob("*.seg") if path.name <= newest)


def segment_header(first_index: int) -> bytes:
    start = SEGMENT_START.pack(SEGMENT_MAGIC, first_index)
    return start + CRC.pack(zlib.crc32(start))


def header_of(leaf: Leaf) -> bytes:
    """Canonical JSON of everything but the body: the bytes that the tree is over. Put together here, because the
    library takes five times as long, and this is half of what an append costs. Raises TypeError for a leaf that was
    read with values of other types."""
    classes = ",".join([f"{quoted(name)}:{count:d}" for name, count in sorted(leaf.fields_by_class.items())])
    return (
        f'{{"at":"{leaf.at.isoformat(timespec="microseconds")}","body_sha256":"{leaf.body_sha256.hex()}",'
        f'"destination":{quoted(leaf.destination)},"door":{quoted(leaf.door)},"fields_by_class":{{{classes}}},'
        f'"index":{leaf.index:d},"message":{quoted(leaf.message)},"method":{quoted(leaf.method)},'
        f'"size_bytes":{leaf.size_bytes:d}}}'
    ).encode()


def frame(header: bytes, body: bytes) -> bytes:
    lengths = LENGTHS.pack(len(header), len(body))
    return b"".join((lengths, CRC.pack(checksum(lengths, header, body)), header, body))


def checksum(lengths: bytes, header: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(header, zlib.crc32(lengths)))


def leaf_of(record: Record) -> Leaf:
    """The record's meaning. Raises IntegrityError when header and body do not hold together."""
    try:
        leaf = parse_header(json.loads(record.header), record.body)
        is_canonical = header_of(leaf) == record.header
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(record.segment, record.index, "its header cannot be read") from error
    if leaf.index != record.index:
        raise damaged(record.segment, record.index, f"record {leaf.index} stands in its place")
    if not is_canonical:
        raise damaged(record.segment, record.index, "its header is not canonical")
    if leaf.body is not None and (len(leaf.body) != leaf.size_bytes or sha256(leaf.body).digest() != leaf.body_sha256):
        raise damaged(record.segment, record.index, "its body is not the one that its header names")
    return leaf


def parse_header(fields: dict[str, Any], body: bytes) -> Leaf:
    """An absent body of a message that had one was dropped after its retention, or never kept."""
    return Leaf(
        index=fields["index"],
        at=datetime.fromisoformat(fields["at"]).astimezone(UTC),
        door=fields["door"],
        destination=fields["destination"],
        method=fields["method"],
        message=fields["message"],
        size_bytes=fields["size_bytes"],
        fields_by_class=fields["fields_by_class"],
        body_sha256=bytes.fromhex(fields["body_sha256"]),
        body=None if fields["size_bytes"] and not body else body,
    )


def walk(folder: Path, durable: int) -> Iterator[Record]:
    """Every record in order, framing and CRC checked.

    durable: number of records that were acknowledged; whatever is wrong with one of those is damage.
    Raises: IntegrityError (damage, with file and index); TornTailError (the last segment ends in an unfinished record
        that was never acknowledged: the records before it are all there are).
    """
    expected = 0
    paths = segments(folder)
    for path in paths:
        try:
            for record in read_segment(path, expected):
                yield record
                expected = record.index + 1
        except TornTailError as torn:
            if path != paths[-1] or torn.index < durable:
                raise damaged(path, torn.index, "it is cut off or overwritten") from torn
            raise
    if expected < durable:
        raise damaged(paths[-1] if paths else folder, expected, f"records up to {durable - 1} are missing")


def read_segment(path: Path, first_index: int) -> Iterator[Record]:
    with path.open("rb") as file:
        size = path.stat().st_size
        check_segment_header(path, file.read(SEGMENT_HEADER_BYTES), first_index, size=size)
        index, offset = first_index, SEGMENT_HEADER_BYTES
        while record := read_record(file, path, index, offset=offset, size=size):
            yield record
            index, offset = index + 1, record.end


def check_segment_header(path: Path, start: bytes, expected: int, *, size: int) -> None:
    """Raises IntegrityError; TornTailError for a segment in which a crash left not even the header."""
    if path.name != segment_name(expected):
        raise damaged(path, expected, f"a segment that begins with record {expected} belongs here")
    if len(start) < SEGMENT_HEADER_BYTES or (size == SEGMENT_HEADER_BYTES and not start.strip(b"\0")):
        raise TornTailError(path, expected, 0)
    if start != segment_header(expected):
        raise damaged(path, expected, "its segment header is overwritten")


def read_record(file: BinaryIO, path: Path, index: int, *, offset: int, size: int) -> Record | None:
    """The record at `offset` of a file of `size` bytes, None at its end. Raises IntegrityError, TornTailError."""
    start = file.read(FRAME_BYTES)
    if not start:
        return None
    if len(start) < FRAME_BYTES:
        raise TornTailError(path, index, offset)
    header_bytes, body_bytes = LENGTHS.unpack_from(start)
    end = offset + FRAME_BYTES + header_bytes + body_bytes
    if end > size or (not start.strip(b"\0") and only_zeros(file)):
        raise TornTailError(path, index, offset)
    header, body = file.read(header_bytes), file.read(body_bytes)
    if CRC.pack(checksum(start[: LENGTHS.size], header, body)) != start[LENGTHS.size :]:
        if end == size:
            raise TornTailError(path, index, offset)
        raise damaged(path, index, "its checksum does not hold")
    return Record(path, index, end, header, body)


def only_zeros(file: BinaryIO) -> bool:
    """Whether nothing but zeros follows: what some filesystems leave of a write that power loss cut."""
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            return False
    return True
