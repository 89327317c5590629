"""Instruments: that they count right, stay small, and read as Prometheus reads."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core.meters import MOST_CELLS, OTHER, Counter, Gauge, Histogram, Meters, as_prometheus
from faos_core.names import Attribute, Metric


def test_counter_counts_by_label_and_in_all() -> None:
    """A rate by state and a rate in all come from one instrument."""
    counter = Counter(Metric.RUNS_FINISHED, "Runs.", labels=(Attribute.STATE_NAME,))

    counter.add(1, "succeeded")
    counter.add(2, "failed")
    counter.add(1, "failed")

    assert counter.values() == {("succeeded",): 1, ("failed",): 3}
    assert counter.total() == 4


def test_counter_loses_nothing_between_threads() -> None:
    """The ledger's and the store's threads count beside the loop's."""
    counter = Counter(Metric.RUN_TURNS, "Turns.")

    def count() -> None:
        for _ in range(2_000):
            counter.add()

    threads = [threading.Thread(target=count) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counter.total() == 16_000


@pytest.mark.parametrize("kind", [Counter, Histogram])
def test_instrument_stays_small_whatever_its_labels_are(kind: type[Counter | Histogram]) -> None:
    """A label that somebody makes up at each call must not eat the node's memory."""
    instrument = kind(Metric.LINK_ENDS, "Ends.", labels=(Attribute.ERROR_TYPE,))

    for number in range(10 * MOST_CELLS):
        if isinstance(instrument, Counter):
            instrument.add(1, f"made-up-{number}")
        else:
            instrument.record(1.0, f"made-up-{number}")

    cells = instrument.values() if isinstance(instrument, Counter) else instrument.cells()
    assert len(cells) == MOST_CELLS + 1
    assert (OTHER,) in cells


@given(st.lists(st.floats(min_value=0, max_value=1e4), min_size=1, max_size=50))
def test_histogram_puts_each_value_into_the_first_bucket_that_holds_it(values: list[float]) -> None:
    """Prometheus' buckets are upper bounds, inclusive; quantiles are computed from nothing else."""
    one_by_one = Histogram(Metric.RUN_DURATION, "Runs.", (0.1, 1.0, 10.0))
    at_once = Histogram(Metric.RUN_DURATION, "Runs.", (0.1, 1.0, 10.0))

    for value in values:
        one_by_one.record(value)
    at_once.record_all(values)

    cell, other = one_by_one.cells()[()], at_once.cells()[()]
    bounds = [0.0, 0.1, 1.0, 10.0, float("inf")]
    expected = [sum(low < value <= high or (low == 0.0 == value) for value in values) for low, high in pairwise(bounds)]
    assert cell.counts == other.counts == expected
    assert (cell.least, cell.most) == (other.least, other.most) == (min(values), max(values))
    assert cell.sum == pytest.approx(other.sum) == pytest.approx(sum(values))


def test_name_is_used_once_in_a_plane() -> None:
    """Two series of one name are one lie."""
    meters = Meters()
    meters.add([Counter(Metric.RUN_TURNS, "Turns.")])

    with pytest.raises(ValueError, match="twice"):
        meters.add([Counter(Metric.RUN_TURNS, "Others.")])


def test_text_is_what_prometheus_reads() -> None:
    """`faos metrics` is read by machines that a site has already."""
    counter = Counter(Metric.LEDGER_LEAVES, "Left.", labels=(Attribute.DOOR,))
    counter.add(2, 'a"b\\c\nd')
    sizes = {"bytes": 3.0}
    sent = Gauge(Metric.LINK_SENT, "Sent.", lambda: sizes["bytes"], unit="By", is_sum=True)
    took = Histogram(Metric.RUN_DURATION, "Runs.", (0.5, 1.0))
    took.record(0.5)
    took.record(7.0)

    text = as_prometheus([took, sent, counter])

    assert text.splitlines() == [
        "# HELP faos_ledger_leaves_total Left.",
        "# TYPE faos_ledger_leaves_total counter",
        r'faos_ledger_leaves_total{door="a\"b\\c\nd"} 2',
        "# HELP faos_link_sent_bytes_total Sent.",
        "# TYPE faos_link_sent_bytes_total counter",
        "faos_link_sent_bytes_total 3",
        "# HELP faos_run_duration_seconds Runs.",
        "# TYPE faos_run_duration_seconds histogram",
        'faos_run_duration_seconds_bucket{le="0.5"} 1',
        'faos_run_duration_seconds_bucket{le="1"} 1',
        'faos_run_duration_seconds_bucket{le="+Inf"} 2',
        "faos_run_duration_seconds_sum 7.5",
        "faos_run_duration_seconds_count 2",
    ]


def test_nothing_to_record_is_no_failure() -> None:
    """Whoever measures a batch need not look whether anything was in it."""
    took = Histogram(Metric.RUN_DURATION, "Runs.")

    took.record_all([])

    assert took.cells() == {}
