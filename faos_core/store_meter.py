"""What a store counts of its writes."""

from collections.abc import Sequence

from faos_core.meters import Counter, Histogram, Instrument
from faos_core.names import Metric


class StoreMeter:
    """In the writer's thread: once for each commit, however many writes are in it."""

    def __init__(self) -> None:
        self._writes = Counter(Metric.STORE_WRITES, "Writes handed to the database.")
        self._commits = Counter(Metric.STORE_COMMITS, "Transactions, each of one write or of many.")
        self._duration = Histogram(Metric.STORE_COMMIT_DURATION, "From the begin of a transaction to its end.")

    def committed(self, writes: int, duration_s: float) -> None:
        self._writes.add(writes)
        self._commits.add()
        self._duration.record(duration_s)

    def instruments(self) -> Sequence[Instrument]:
        return self._writes, self._commits, self._duration
