"""Checks an egress ledger, offline and without trusting the software that wrote it.

One file, Python's standard library only: copy it to any machine with Python 3.11 and run

    python ledger_verifier.py LEDGER_DIR [--json] [--witness SIZE:ROOT]

It reads every byte of every segment, checks framing, checksums, indexes, headers and bodies, computes the Merkle
tree head (RFC 6962, SHA-256) on its own and compares it with the ledger's head file. `--witness` takes a head seen
earlier, for instance the one that the control plane holds for this node (`faos get node NAME -o json`), and checks
that the ledger still begins with it. Exit 0: it holds. Exit 1: a plain sentence says what is wrong and where.

The format: `head` is "FAOSLDH1", number of records (u64), tree hash (32 bytes), CRC-32. A segment is named after its
first index and is "FAOSLDG1", that index (u64), CRC-32 of both, then records: header length, body length, CRC-32
over lengths, header and body, the header (canonical JSON), the body (what was sent; empty once dropped after its
retention). Numbers are big-endian. A leaf of the tree is a header; it names the SHA-256 of its body.
"""

import argparse
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

CLASSES = ("OPERATIONAL", "IDENTIFIER", "CUSTOMER")
HEADER_TYPES = {
    "at": str,
    "body_sha256": str,
    "destination": str,
    "door": str,
    "fields_by_class": dict,
    "index": int,
    "message": str,
    "method": str,
    "size_bytes": int,
}


class Wrong(Exception):  # noqa: N818  # it is the finding, not a failure of this program
    """What does not hold, as a sentence."""


@dataclass(slots=True)
class Tally:
    messages: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Report:
    """What the ledger says, and whether it holds. `problem` is empty when it does."""

    ok: bool = False
    problem: str = ""
    size: int = 0  # records that hold
    root_sha256: str = ""  # tree head over them, hexadecimal
    bodies_dropped: int = 0
    by_door: dict[str, Tally] = field(default_factory=dict)
    by_class: dict[str, Tally] = field(default_factory=dict)  # by the highest class of any field of a message
    notes: list[str] = field(default_factory=list)


class TreeHash:
    """RFC 6962 tree hash of a growing list: the hashes of perfect subtrees, with their sizes, largest first."""

    def __init__(self) -> None:
        self.subtrees: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        size, node = 1, hashlib.sha256(b"\x00" + leaf).digest()
        while self.subtrees and self.subtrees[-1][0] == size:
            _, left = self.subtrees.pop()
            size, node = size * 2, hashlib.sha256(b"\x01" + left + node).digest()
        self.subtrees.append((size, node))

    def root(self) -> bytes:
        root = b""
        for _, node in reversed(self.subtrees):
            root = hashlib.sha256(b"\x01" + node + root).digest() if root else node
        return root or hashlib.sha256(b"").digest()


def verify(path: Path | str, *, witness: tuple[int, str] | None = None) -> Report:
    """Check the ledger in this folder. Reads only; the node may be running.

    witness: number of records and hexadecimal tree hash of a head seen earlier.
    """
    report, tree = Report(), TreeHash()
    try:
        expected_heads = heads(Path(path), witness)
        compare(tree, 0, expected_heads)
        for header, raw in records(Path(path), max(expected_heads), report.notes):
            tree.add(raw)
            count(report, header)
            compare(tree, report.size, expected_heads)
    except Wrong as wrong:
        report.problem = str(wrong)
    except OSError as error:
        report.problem = f"{error.filename or path} cannot be read: {error.strerror}."
    report.ok, report.root_sha256 = not report.problem, tree.root().hex()
    return report


def heads(folder: Path, witness: tuple[int, str] | None) -> dict[int, list[tuple[str, str]]]:
    """Heads that the records must lead to: size → (tree hash, who says so)."""
    size, root = read_head(folder)
    expected = {size: [(root, "the head file")]}
    if witness:
        expected.setdefault(witness[0], []).append((witness[1].lower(), "the witness"))
    return expected


def read_head(folder: Path) -> tuple[int, str]:
    if not folder.is_dir():
        raise Wrong(f"{folder} is not a folder.")
    path = folder / "head"
    if not path.exists():
        raise Wrong(f"There is no head file in {folder}: it is not a ledger, or its head was removed.")
    for _ in range(5):  # the node may be writing it
        data = path.read_bytes()
        if len(data) == 52 and data[:8] == b"FAOSLDH1" and struct.unpack(">I", data[48:]) == (zlib.crc32(data[:48]),):
            return int.from_bytes(data[8:16], "big"), data[16:48].hex()
    raise Wrong("The head file is overwritten: it is not what the node wrote.")


def compare(tree: TreeHash, size: int, expected: dict[int, list[tuple[str, str]]]) -> None:
    root = tree.root().hex()
    for said, who in expected.get(size, ()):
        if said != root:
            raise Wrong(
                f"The first {size} records have the tree hash {root}, but {who} says {said}: history was rewritten."
            )


def count(report: Report, header: dict[str, object]) -> None:
    present = [name for name in CLASSES if name in dict_of(header["fields_by_class"])]
    size_bytes = int(str(header["size_bytes"]))
    for tallies, key in ((report.by_door, str(header["door"])), (report.by_class, present[-1] if present else "EMPTY")):
        tally = tallies.setdefault(key, Tally())
        tally.messages += 1
        tally.size_bytes += size_bytes
    report.size += 1
    report.bodies_dropped += bool(header["dropped"])


def dict_of(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def records(folder: Path, durable: int, notes: list[str]) -> Iterator[tuple[dict[str, object], bytes]]:
    """Parsed and raw header of each record. Below `durable` everything must be there; an unfinished record at the
    very end, which a crash leaves and nobody was told of, is a note."""
    index, paths = 0, segments(folder)
    for path in paths:
        data = path.read_bytes()
        position = segment_start(path, data, index)
        while position < len(data):
            end = record_end(data, position)
            if end is None:
                if path != paths[-1] or index < durable:
                    raise Wrong(f"Record {index} in {path.name} is cut off or overwritten at byte {position}.")
                notes.append(f"{len(data) - position} bytes at the end of {path.name} are an unfinished record.")
                return
            yield record(path, data[position:end], index)
            index, position = index + 1, end
    if index < durable:
        raise Wrong(f"Records {index} to {durable - 1} are missing from the end of the ledger.")


def segments(folder: Path) -> list[Path]:
    """In order and complete up to the last one, while the node may be adding to them: one listing may hold a new
    segment and miss the one before it; a second, begun when the newest was there, misses none before that."""
    newest = max((path.name for path in folder.glob("*.seg")), default="")
    return sorted(path for path in folder.glob("*.seg") if path.name <= newest)


def segment_start(path: Path, data: bytes, index: int) -> int:
    """Where the first record begins; 0 when a crash left not even the segment's start."""
    if path.name != f"{index:020d}.seg":
        raise Wrong(f"{path.name} is there, but a segment that begins with record {index} belongs in its place.")
    start = b"FAOSLDG1" + index.to_bytes(8, "big")
    start += zlib.crc32(start).to_bytes(4, "big")
    unfinished = len(data) < len(start) or (len(data) == len(start) and not any(data))
    if not unfinished and data[: len(start)] != start:
        raise Wrong(f"The start of {path.name} (record {index}) is overwritten.")
    return 0 if unfinished else len(start)


def record_end(data: bytes, position: int) -> int | None:
    """Byte after the record at `position`; None when it is not all there."""
    if len(data) - position < 12 or position == 0:
        return None
    if not any(data[position : position + 12]) and not any(data[position:]):
        return None
    header_bytes, body_bytes, crc = struct.unpack_from(">III", data, position)
    end: int = position + 12 + header_bytes + body_bytes
    if end > len(data):
        return None
    holds = zlib.crc32(data[position + 12 : end], zlib.crc32(data[position : position + 8])) == crc
    return end if holds or end < len(data) else None


def record(path: Path, data: bytes, index: int) -> tuple[dict[str, object], bytes]:
    """Parsed and raw header of one framed record, checked."""
    where = f"Record {index} in {path.name}"
    header_bytes, _, crc = struct.unpack_from(">III", data)
    raw, body = data[12 : 12 + header_bytes], data[12 + header_bytes :]
    if zlib.crc32(data[12:], zlib.crc32(data[:8])) != crc:
        raise Wrong(f"{where} does not have the checksum that was written with it.")
    header = parsed(raw, where)
    if header["index"] != index:
        raise Wrong(f"{where} is record {header['index']}: records were dropped, repeated or reordered.")
    header["dropped"] = not body and header["size_bytes"] != 0
    if not header["dropped"] and len(body) != header["size_bytes"]:
        raise Wrong(f"{where} holds {len(body)} bytes of a message of {header['size_bytes']}.")
    if not header["dropped"] and hashlib.sha256(body).hexdigest() != header["body_sha256"]:
        raise Wrong(f"{where} holds another message than the one that its header names.")
    return header, raw


def parsed(raw: bytes, where: str) -> dict[str, object]:
    try:
        header = json.loads(raw)
    except ValueError:
        raise Wrong(f"{where} has a header that is not JSON.") from None
    if not isinstance(header, dict) or {key: type(value) for key, value in header.items()} != HEADER_TYPES:
        raise Wrong(f"{where} has a header with fields missing, added or of another type.")
    if json.dumps(header, sort_keys=True, separators=(",", ":")).encode() != raw:
        raise Wrong(f"{where} has a header that is not in canonical form.")
    return header


def as_text(report: Report) -> str:
    """For a person."""
    lines = [f"{'HOLDS' if report.ok else 'DOES NOT HOLD'}: {report.problem or 'every record is there and intact.'}"]
    lines.append(f"{report.size} messages; tree head {report.root_sha256}")
    for title, tallies in (("door", report.by_door), ("class", report.by_class)):
        for name, tally in sorted(tallies.items()):
            lines.append(f"  {title} {name:<12} {tally.messages:>10} messages {tally.size_bytes:>14} bytes")
    if report.bodies_dropped:
        lines.append(f"{report.bodies_dropped} messages are kept as size and SHA-256 only.")
    return "\n".join(lines + report.notes)


def witness_of(text: str) -> tuple[int, str]:
    size, _, root = text.partition(":")
    if not size.isdigit() or len(root) != 64:
        raise argparse.ArgumentTypeError("expected SIZE:ROOT, the root as 64 hexadecimal digits")
    return int(size), root


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an egress ledger, offline.")
    parser.add_argument("ledger", metavar="LEDGER_DIR")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--witness", type=witness_of, metavar="SIZE:ROOT", help="a head seen earlier")
    options = parser.parse_args(arguments)
    report = verify(options.ledger, witness=options.witness)
    text = json.dumps(asdict(report), indent=2) if options.json else as_text(report)
    sys.stdout.write(text + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
