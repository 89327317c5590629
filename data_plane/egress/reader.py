"""Reading the ledger without its lock: `faos ledger show` works whether or not the node runs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_plane.egress.data_classes import highest_class
from data_plane.egress.head_file import HEAD_NAME, read_head
from data_plane.egress.interfaces import Leaf
from data_plane.egress.records import TornTailError, leaf_of, segments, walk


def read_leaves(folder: Path) -> Iterator[Leaf]:
    """Every whole record, in order; an unfinished one at the end, which nobody was told of, is left out.

    A folder without a ledger has no leaves. Raises IntegrityError at the first damage.
    """
    if not (folder / HEAD_NAME).exists() and not segments(folder):
        return
    durable = read_head(folder).size  # before the segments are listed: all that it counts is in those
    try:
        for record in walk(folder, durable):
            yield leaf_of(record)
    except TornTailError:
        return


@dataclass(frozen=True, slots=True)
class Tally:
    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What left. A message counts under the highest class that any of its fields has, "EMPTY" without fields."""

    total: Tally
    by_class: dict[str, Tally]
    by_door: dict[str, Tally]


def summarise(folder: Path, *, first_index: int = 0) -> Summary:
    """Messages and bytes by class and by door, from record `first_index` on. Raises IntegrityError."""
    messages: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for leaf in read_leaves(folder):
        if leaf.index >= first_index:
            key = (highest_class(leaf.fields_by_class), leaf.door)
            messages[key] += 1
            sizes[key] += leaf.size_bytes
    return Summary(Tally(messages.total(), sizes.total()), grouped(messages, sizes, 0), grouped(messages, sizes, 1))


def grouped(messages: Counter[tuple[str, str]], sizes: Counter[tuple[str, str]], part: int) -> dict[str, Tally]:
    names = sorted({key[part] for key in messages})
    return {
        name: Tally(
            sum(count for key, count in messages.items() if key[part] == name),
            sum(size for key, size in sizes.items() if key[part] == name),
        )
        for name in names
    }
