"""What a ledger counts of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_plane.egress.data_classes import EMPTY, HIGHEST_FIRST, highest_class
from faos_core.meters import Gauge, Histogram, Instrument, Labels
from faos_core.names import Attribute, Metric


@dataclass(slots=True)
class Total:
    """Of the messages whose highest class is the same."""

    leaves: int = 0
    size_bytes: int = 0


class LedgerMeter:
    """Written by the ledger's thread, once for each group commit; read by anybody."""

    def __init__(self) -> None:
        self._totals = {name: Total() for name in (*HIGHEST_FIRST, EMPTY)}
        self._sent: dict[str, Total] = {}  # by door, since the start
        self._append = Histogram(Metric.LEDGER_APPEND_DURATION, "From a message's arrival until it is durable.")
        self._commit = Histogram(Metric.LEDGER_COMMIT_DURATION, "Of a write and fsync of all that waited.")
        self._leaves = Gauge(
            Metric.LEDGER_LEAVES, "Messages that left.", self._leaves_by_door, labels=(Attribute.DOOR,), is_sum=True
        )
        self._size = Gauge(
            Metric.LEDGER_SIZE, "Bytes of the messages in the ledger.", self._bytes_by_class, unit="By",
            labels=(Attribute.CLASS,), is_sum=True,
        )  # fmt: skip

    def instruments(self) -> Sequence[Instrument]:
        return self._append, self._commit, self._leaves, self._size

    def found(self, fields_by_class: Mapping[str, int], size_bytes: int) -> None:
        """A message that stands in the ledger."""
        total = self._totals[highest_class(fields_by_class)]
        total.leaves += 1
        total.size_bytes += size_bytes

    def sent(self, door: str, size_bytes: int) -> None:
        """A message that is about to leave."""
        total = self._sent.setdefault(door, Total())
        total.leaves += 1
        total.size_bytes += size_bytes

    def committed(self, waited_s: Sequence[float], duration_s: float) -> None:
        self._append.record_all(waited_s)
        self._commit.record(duration_s)

    def totals(self) -> Mapping[str, Total]:
        """By highest class, over the whole ledger."""
        return self._totals

    def sent_bytes(self, door: str) -> int:
        return self._sent.get(door, Total()).size_bytes

    def _leaves_by_door(self) -> Mapping[Labels, float]:
        return {(door,): total.leaves for door, total in list(self._sent.items())}

    def _bytes_by_class(self) -> Mapping[Labels, float]:
        return {(name,): total.size_bytes for name, total in self._totals.items()}
