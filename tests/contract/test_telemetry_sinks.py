"""Every sink of telemetry, against an OTLP collector that the test runs: HTTP as the specification has it."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from control_plane.telemetry import collector as of_control_plane
from data_plane.ceiling.models import DoorCeiling, Endpoint
from data_plane.egress.doors import TELEMETRY
from data_plane.egress.http_door import HttpDoor
from data_plane.egress.ledger import open_ledger
from data_plane.egress.ledger_verifier import verify
from data_plane.egress.reader import read_leaves
from data_plane.telemetry.collector import CollectorSink
from faos_core.clock import SystemClock
from faos_core.errors import DeniedError, InvalidError, UnavailableError
from faos_core.meters import Meters
from faos_core.names import Attribute, Resource, Span
from faos_core.telemetry import Sink, Telemetry
from tests.patience import PATIENCE_S
from tests.servers.captured_http import CapturedHttp, captured_http

SinkOf = Callable[[int, Path], AbstractAsyncContextManager[Sink]]
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad"
MOVED = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/v1/traces\r\nContent-Length: 0\r\n\r\n"
CEILING = DoorCeiling.IDENTIFIER


@asynccontextmanager
async def node_sink(port: int, folder: Path) -> AsyncIterator[Sink]:
    async with open_ledger(folder / "ledger") as ledger:
        endpoint = Endpoint("collector", f"http://127.0.0.1:{port}/otlp", DoorCeiling.CUSTOMER)
        async with HttpDoor(TELEMETRY.name, endpoint, doors={}, ledger=ledger, clock=SystemClock()) as door:
            yield CollectorSink(door)


@asynccontextmanager
async def control_plane_sink(port: int, folder: Path) -> AsyncIterator[Sink]:
    yield of_control_plane.CollectorSink(f"http://127.0.0.1:{port}/otlp/")


SINKS = pytest.mark.parametrize("sink_of", [node_sink, control_plane_sink])


def request() -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    span = made.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = "invoke_agent assistant", b"\x01" * 16, b"\x02" * 8
    return made


@SINKS
async def test_collector_receives_otlp_over_http(sink_of: SinkOf, tmp_path: Path) -> None:
    """Any collector that a site has already must understand us, at the path that the specification says."""
    async with captured_http() as collector, sink_of(collector.port, tmp_path) as sink:
        await sink.send("traces", request())
        await sink.send("metrics", request())

    traces, metrics = collector.requests
    head, _, body = traces.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /otlp/v1/traces HTTP/1.1\r\n")
    assert re.search(rb"(?i)\r\ncontent-type: application/x-protobuf(\r\n|$)", head)
    assert ExportTraceServiceRequest.FromString(body) == request()
    assert metrics.startswith(b"POST /otlp/v1/metrics HTTP/1.1\r\n")


@SINKS
async def test_collector_that_cannot_now_is_asked_again(sink_of: SinkOf, tmp_path: Path) -> None:
    """Busy, away, or answering something else: nothing is lost but time."""
    async with captured_http(BUSY) as collector, sink_of(collector.port, tmp_path) as sink:
        with pytest.raises(UnavailableError, match="collector_refused"):
            await sink.send("traces", request())
        port = collector.port
        collector.hang_up()
    async with sink_of(port, tmp_path / "later") as sink:
        with pytest.raises(UnavailableError):
            await sink.send("traces", request())


@SINKS
async def test_collector_that_never_takes_it_is_not_asked_again(sink_of: SinkOf, tmp_path: Path) -> None:
    """What is malformed to it today is so tomorrow, and would stand before everything else."""
    async with captured_http(BAD) as collector, sink_of(collector.port, tmp_path) as sink:
        with pytest.raises(InvalidError, match="collector_refused"):
            await sink.send("traces", request())


@SINKS
async def test_no_redirect_is_followed(sink_of: SinkOf, tmp_path: Path) -> None:
    """A collector must not be able to send what a site tells of itself to somebody else."""
    async with captured_http(MOVED) as collector, sink_of(collector.port, tmp_path) as sink:
        with pytest.raises(UnavailableError):
            await sink.send("traces", request())

    assert len(collector.requests) == 1


@SINKS
async def test_collector_that_says_nothing_is_given_up_in_time(
    sink_of: SinkOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the request and hangs: the exporter must come back."""
    monkeypatch.setattr("data_plane.telemetry.collector.READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(of_control_plane, "TIMEOUT_S", 0.2)
    async with captured_http(b"") as collector, sink_of(collector.port, tmp_path) as sink:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(UnavailableError):
                await sink.send("traces", request())


# ---- the node's door


async def test_what_the_collector_received_is_what_the_ledger_says(tmp_path: Path) -> None:
    """Promise 2 for telemetry: each request a leaf, of the telemetry door, over the very bytes; kept, for an auditor to
    read that it is names and numbers."""
    async with captured_http() as collector, node_sink(collector.port, tmp_path) as sink:
        await sink.send("traces", request())
        await sink.send("metrics", request())

    leaves = list(read_leaves(tmp_path / "ledger"))
    assert [leaf.body_sha256 for leaf in leaves] == [hashlib.sha256(each).digest() for each in collector.requests]
    assert [leaf.body for leaf in leaves] == collector.requests
    assert {(leaf.door, leaf.destination) for leaf in leaves} == {("telemetry", f"127.0.0.1:{collector.port}")}
    assert [leaf.fields_by_class for leaf in leaves] == [{"IDENTIFIER": 1}] * 2
    assert verify(tmp_path / "ledger").ok


@pytest.mark.parametrize("where", ["doors", "endpoint"])
async def test_site_that_lets_only_numbers_pass_sends_no_names(tmp_path: Path, where: str) -> None:
    """The ceiling is the customer's: the door's own, or the endpoint's; neither is asked by anybody else."""
    low = DoorCeiling.OPERATIONAL
    doors = {TELEMETRY.name: low} if where == "doors" else {}
    async with captured_http() as collector, open_ledger(tmp_path / "ledger") as ledger:
        url = f"http://127.0.0.1:{collector.port}"
        endpoint = Endpoint("collector", url, low if where == "endpoint" else CEILING)
        async with HttpDoor(TELEMETRY.name, endpoint, doors=doors, ledger=ledger, clock=SystemClock()) as door:
            with pytest.raises(DeniedError):
                await CollectorSink(door).send("traces", request())

    assert collector.requests == []
    assert list(read_leaves(tmp_path / "ledger")) == []


def test_no_ceiling_lets_customer_data_through_the_telemetry_door() -> None:
    """Whatever site.toml says by mistake."""
    assert TELEMETRY.highest_ceiling is DoorCeiling.IDENTIFIER


async def test_spans_travel_the_whole_way(tmp_path: Path) -> None:
    """The encoder, the door and the wire together: a collector reads the tree that was made."""
    async with captured_http() as collector, node_sink(collector.port, tmp_path) as sink:
        telemetry = Telemetry(
            sink,
            Meters(),
            resource={Resource.SERVICE_NAME: "faos-node"},
            vouches={"assistant"}.__contains__,
            clock=SystemClock(),
            interval_s=60,
        )
        run = asyncio.ensure_future(telemetry.run())
        await telemetry.ready.wait()
        with telemetry.span(Span.RUN, {Attribute.AGENT_NAME: "assistant"}), telemetry.span(Span.MODEL_TURN):
            pass
        run.cancel()
        await asyncio.wait([run])

    turn, whole = spans_in(collector)
    assert turn.parent_span_id == whole.span_id
    assert turn.trace_id == whole.trace_id


def spans_in(collector: CapturedHttp) -> list[Any]:
    (body,) = [each.partition(b"\r\n\r\n")[2] for each in collector.requests if b"/v1/traces " in each]
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert resource.resource.attributes[0].value.string_value == "faos-node"
    return [span for scope in resource.scope_spans for span in scope.spans]
