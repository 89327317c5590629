"""Instruments: what a process counts and measures, always, at a fraction of a microsecond each.

Each part owns its instruments and counts whether or not anybody looks; the composition root collects them in one
`Meters`. Readers are `faos metrics`, `faos top` and, where it is switched on, telemetry.py, which hands them to
OpenTelemetry. Labels are words of our own (states, doors, classes, codes): never a customer's.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from faos_core.names import Attribute, Metric

Labels = tuple[str, ...]
Values = Mapping[Labels, float]

MOST_CELLS = 256  # label combinations of one instrument; further ones count as OTHER
OTHER = "other"
FAST_S = (0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)  # disk, calls
SLOW_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)  # models, pushes


class Counter:
    """Grows. Safe for any thread."""

    def __init__(self, name: Metric, about: str, *, unit: str = "1", labels: Sequence[Attribute] = ()) -> None:
        self.name, self.about, self.unit, self.labels = name, about, unit, tuple(labels)
        self._cells: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def add(self, amount: float = 1, *labels: str) -> None:
        with self._lock:
            cells = self._cells
            if labels not in cells and len(cells) >= MOST_CELLS:
                labels = (OTHER,) * len(labels)
            cells[labels] = cells.get(labels, 0) + amount

    def values(self) -> Values:
        with self._lock:
            return dict(self._cells)

    def total(self) -> float:
        return sum(self.values().values())


class Gauge:
    """Is read when somebody looks. read: quick, on the event loop. is_sum: what it reads only grows."""

    def __init__(
        self,
        name: Metric,
        about: str,
        read: Callable[[], float | Values],
        *,
        unit: str = "1",
        labels: Sequence[Attribute] = (),
        is_sum: bool = False,
    ) -> None:
        self.name, self.about, self.unit, self.labels, self.is_sum = name, about, unit, tuple(labels), is_sum
        self._read = read

    def values(self) -> Values:
        found = self._read()
        return found if isinstance(found, Mapping) else {(): found}


@dataclass(slots=True)
class Cell:
    """What a histogram knows of one label combination."""

    counts: list[int]
    sum: float = 0.0
    least: float = float("inf")
    most: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)


class Histogram:
    """Seconds, by upper bounds; the last bucket has none. Safe for any thread."""

    def __init__(
        self,
        name: Metric,
        about: str,
        bounds: Sequence[float] = FAST_S,
        *,
        labels: Sequence[Attribute] = (),
    ) -> None:
        self.name, self.about, self.unit, self.labels = name, about, "s", tuple(labels)
        self.bounds = tuple(bounds)
        self._cells: dict[Labels, Cell] = {}
        self._lock = threading.Lock()

    def record(self, value: float, *labels: str) -> None:
        place = bisect_left(self.bounds, value)
        with self._lock:
            cell = self._cells.get(labels) or self._new(labels)
            cell.counts[place] += 1
            cell.sum += value
            if value < cell.least:
                cell.least = value
            if value > cell.most:
                cell.most = value

    def record_all(self, values: Sequence[float]) -> None:
        """As `record` for each, at once: without labels."""
        if not values:
            return
        bounds = self.bounds
        with self._lock:
            cell = self._cells.get(()) or self._new(())
            for value in values:
                cell.counts[bisect_left(bounds, value)] += 1
            cell.sum += sum(values)
            cell.least = min(cell.least, *values)
            cell.most = max(cell.most, *values)

    def _new(self, labels: Labels) -> Cell:
        if len(self._cells) >= MOST_CELLS:
            labels = (OTHER,) * len(labels)
        return self._cells.setdefault(labels, Cell([0] * (len(self.bounds) + 1)))

    def cells(self) -> Mapping[Labels, Cell]:
        with self._lock:
            return {
                labels: Cell(list(cell.counts), cell.sum, cell.least, cell.most) for labels, cell in self._cells.items()
            }


Instrument = Counter | Gauge | Histogram


@dataclass(slots=True)
class Meters:
    """All instruments of one plane."""

    instruments: list[Instrument] = field(default_factory=list)

    def add(self, instruments: Iterable[Instrument]) -> None:
        """Raises ValueError for a name that is there already."""
        for instrument in instruments:
            if any(each.name == instrument.name for each in self.instruments):
                raise ValueError(f"instrument {instrument.name!r} is there twice")
            self.instruments.append(instrument)


def as_prometheus(instruments: Iterable[Instrument]) -> str:
    """The text format that Prometheus reads (version 0.0.4)."""
    lines = [line for each in sorted(instruments, key=lambda it: it.name) for line in _lines(each)]
    return "\n".join([*lines, ""])


def _lines(instrument: Instrument) -> list[str]:
    name = _metric_name(instrument)
    kind = "histogram" if isinstance(instrument, Histogram) else "counter" if _grows(instrument) else "gauge"
    head = [f"# HELP {name} {instrument.about}", f"# TYPE {name} {kind}"]
    if not isinstance(instrument, Histogram):
        cells = sorted(instrument.values().items())
        return head + [f"{name}{_labels(instrument, labels)} {_number(value)}" for labels, value in cells]
    for labels, cell in sorted(instrument.cells().items()):
        seen = 0
        for bound, count in zip((*map(_number, instrument.bounds), "+Inf"), cell.counts, strict=True):
            seen += count
            head.append(f"{name}_bucket{_labels(instrument, labels, le=bound)} {seen}")
        head.append(f"{name}_sum{_labels(instrument, labels)} {_number(cell.sum)}")
        head.append(f"{name}_count{_labels(instrument, labels)} {seen}")
    return head


def _grows(instrument: Counter | Gauge) -> bool:
    return isinstance(instrument, Counter) or instrument.is_sum


def _metric_name(instrument: Instrument) -> str:
    unit = {"s": "_seconds", "By": "_bytes"}.get(instrument.unit, "")
    total = "_total" if not isinstance(instrument, Histogram) and _grows(instrument) else ""
    return instrument.name.replace(".", "_") + unit + total


def _labels(instrument: Instrument, labels: Labels, *, le: str = "") -> str:
    pairs = [
        f'{key.rsplit(".", 1)[-1]}="{_escaped(value)}"' for key, value in zip(instrument.labels, labels, strict=False)
    ]
    pairs += [f'le="{le}"'] if le else []
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
