"""What left the site since a moment: from the ledger, and against what the control plane received."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from control_plane.fleet.frame_record import read_frames
from data_plane.egress.data_classes import CLASSES
from data_plane.egress.head_file import read_head
from data_plane.egress.ledger_verifier import Report, verify
from data_plane.egress.reader import Summary, read_leaves, summarise
from faos_cli.up.layout import Layout
from faos_core.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the ledger and the record of received frames were."""

    leaves: int = 0
    frame_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Departures:
    summary: Summary
    report: Report
    received: int  # messages that the control plane received since
    unaccounted: int  # of those, the ones that are not in the ledger in their order

    @property
    def is_right(self) -> bool:
        """Whole, complete and free of customer data."""
        return self.report.ok and not self.unaccounted and "CUSTOMER" not in self.summary.by_class


def moment(layout: Layout) -> Moment:
    """Now. A damaged ledger is told at the end, not here."""
    try:
        leaves = read_head(layout.ledger).size
    except IntegrityError:
        leaves = 0
    return Moment(leaves, layout.frames.stat().st_size if layout.frames.exists() else 0)


def departures_since(layout: Layout, since: Moment) -> Departures:
    """Reads the frames first: whatever is received was in the ledger before. Raises IntegrityError."""
    received = list(frames_since(layout.frames, since.frame_bytes))
    leaves = iter([leaf.body_sha256 for leaf in read_leaves(layout.ledger) if leaf.index >= since.leaves])
    unaccounted = sum(hashlib.sha256(body).digest() not in leaves for body in received)
    summary = summarise(layout.ledger, first_index=since.leaves)
    return Departures(summary, verify(layout.ledger), len(received), unaccounted)


def frames_since(file: Path, start_byte: int) -> Iterator[bytes]:
    at = 0
    for body in read_frames(file) if file.exists() else ():
        if at >= start_byte:
            yield body
        at += 4 + len(body)


def by_class(summary: Summary) -> dict[str, tuple[int, int]]:
    """Messages and bytes of every class, those with none too."""
    tallies = {name: summary.by_class.get(name) for name in (*CLASSES, *sorted(summary.by_class.keys() - set(CLASSES)))}
    return {name: (tally.messages, tally.size_bytes) if tally else (0, 0) for name, tally in tallies.items()}
