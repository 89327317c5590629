"""OTLP in files: readable as the specification says, for their owner alone, and never larger than agreed."""

import json
import stat
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from faos_core.telemetry_files import FileSink
from faos_core.telemetry_target import check_bounds, is_final


def request(number: int = 1) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    span = made.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.parent_span_id = bytes(range(16)), b"\xff" * 8, b"\x01" * 8
    span.name, span.start_time_unix_nano, span.kind = f"span {number}", number, span.SPAN_KIND_INTERNAL
    return made


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_line_is_one_request_in_otlps_own_json(tmp_path: Path) -> None:
    """Any collector's file receiver can read what a site kept: ids in hex, enums as numbers."""
    sink = FileSink(tmp_path / "telemetry", file_bytes=1 << 20, files=2)

    await sink.send("traces", request())
    await sink.send("traces", request(2))

    first, second = (tmp_path / "telemetry" / "traces.jsonl").read_text().splitlines()
    (span,) = json.loads(first)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span == {
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "f" * 16,
        "parentSpanId": "01" * 8,
        "name": "span 1",
        "kind": 1,
        "startTimeUnixNano": "1",
    }
    assert '"span 2"' in second


async def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    """When somebody's agent ran is not for other users of the machine."""
    sink = FileSink(tmp_path / "telemetry", file_bytes=1 << 20, files=2)

    await sink.send("metrics", request())

    assert stat.S_IMODE((tmp_path / "telemetry").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "telemetry" / "metrics.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("files", [1, 2, 4])
async def test_files_are_bounded_in_size_and_number_and_the_newest_stay(tmp_path: Path, files: int) -> None:
    """Nobody at a hospital looks at a disk until it is full."""
    sink = FileSink(tmp_path, file_bytes=1_000, files=files)

    for number in range(60):
        await sink.send("traces", request(number))

    found = names(tmp_path)
    assert found == sorted(["traces.jsonl", *(f"traces.{place}.jsonl" for place in range(1, files))])
    assert all(file.stat().st_size <= 1_000 for file in tmp_path.iterdir())
    kept = [line for name in [*found[:-1][::-1], found[-1]] for line in (tmp_path / name).read_text().splitlines()]
    numbers = [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] for line in kept]
    assert numbers == [f"span {number}" for number in range(60 - len(kept), 60)], "without a gap, in their order"


async def test_signals_do_not_push_each_other_out(tmp_path: Path) -> None:
    """Metrics come with each interval; the one trace of last night must survive them."""
    sink = FileSink(tmp_path, file_bytes=1_000, files=1)
    await sink.send("traces", request())

    for number in range(60):
        await sink.send("metrics", request(number))

    assert len((tmp_path / "traces.jsonl").read_text().splitlines()) == 1


async def test_folder_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    """The kind that telemetry takes for: not taken, later again."""
    (tmp_path / "telemetry").write_text("in the way")

    with pytest.raises(OSError, match="telemetry"):
        await FileSink(tmp_path / "telemetry", file_bytes=1_000, files=1).send("traces", request())


@pytest.mark.parametrize(
    ("interval_s", "file_bytes", "files"),
    [(0.5, 1 << 20, 4), (3601, 1 << 20, 4), (10, 1, 4), (10, 1 << 31, 4), (10, 1 << 20, 0), (10, 1 << 20, 101)],
)
def test_bounds_are_checked(interval_s: float, file_bytes: int, files: int) -> None:
    """A zero too many fills a disk; one too few exports all the time."""
    with pytest.raises(ValueError, match="must be from"):
        check_bounds(interval_s, file_bytes, files)


@pytest.mark.parametrize(("status", "final"), [(400, True), (404, True), (413, True), (408, False), (429, False)])
def test_what_a_collector_refuses_for_good(status: int, final: bool) -> None:
    """As OTLP has it: a bad request stays bad, a busy collector does not stay busy."""
    assert is_final(status) is final
    assert not any(is_final(each) for each in (500, 502, 503, 504))
