"""Telemetry over a sink of the test's: what reaches it, what never can, and what happens when it does not take it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message

from faos_core import telemetry as module
from faos_core.errors import InvalidError, UnavailableError, define
from faos_core.lifecycle import running
from faos_core.meters import Counter, Gauge, Histogram, Meters
from faos_core.names import Attribute, Metric, Resource, Span
from faos_core.telemetry import BATCH_SPANS, METRICS, TRACES, WAITING_SPANS, Telemetry
from faos_core.trace_context import continuing, current, new_trace
from faos_core.tracing import Word
from tests.patience import PATIENCE_S

CANARY = "Jane Roe has diabetes"
AWAY = define("test.collector_away", what="Away.", why="It is.", next_step="Wait.")
REFUSED = define("test.collector_refuses", what="Refused.", why="It does.", next_step="Look.")


@dataclass
class StepClock:
    """An interval ends when the test says so."""

    ticks: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    slept: int = 0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, duration_s: float) -> None:
        self.slept += 1
        await self.ticks.get()

    async def interval(self) -> None:
        """Over, with all that it exports."""
        before = self.slept
        self.ticks.put_nowait(None)
        async with asyncio.timeout(PATIENCE_S):
            while self.slept <= before:
                await asyncio.sleep(0)
                await asyncio.to_thread(lambda: None)


@dataclass
class Kept:
    """A sink. `fails`: what each request meets, in their order; None takes it."""

    requests: list[tuple[str, Any]] = field(default_factory=list)
    fails: Callable[[str], Exception | None] = lambda signal: None
    held: asyncio.Event | None = None

    async def send(self, signal: str, request: Message) -> None:
        if self.held is not None:
            await self.held.wait()
        if error := self.fails(signal):
            raise error
        self.requests.append((signal, request))

    def spans(self) -> list[Any]:
        return [
            span
            for signal, request in self.requests
            if signal == TRACES
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, Any]:
        """Of the latest request, by name."""
        *_, last = (request for signal, request in self.requests if signal == METRICS)
        return {
            metric.name: metric
            for resource in last.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@dataclass
class Bench:
    telemetry: Telemetry
    sink: Kept
    clock: StepClock
    meters: Meters

    def count(self, name: Metric, signal: str = TRACES) -> float:
        (counter,) = [each for each in self.meters.instruments if each.name is name]
        assert isinstance(counter, Counter)
        return counter.values().get((signal,), 0)


def bench(known: Iterable[str] = (), **sink: Any) -> Bench:
    clock, kept, meters = StepClock(), Kept(**sink), Meters()
    resource: dict[str, str] = {Resource.SERVICE_NAME: "faos-test"}
    made = Telemetry(
        kept, meters, resource=resource, vouches=frozenset(known).__contains__, clock=clock, interval_s=1.0
    )
    return Bench(made, kept, clock, meters)


@asynccontextmanager
async def at_work(each: Bench) -> Any:
    async with running([each.telemetry]):
        yield each


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


# ---- spans


async def test_children_know_their_parents_across_tasks_and_processes() -> None:
    """A trace is its parent ids; one wrong and it is a heap of spans."""
    each, remote = bench(), new_trace()
    async with at_work(each):
        with continuing(remote), each.telemetry.span(Span.RUN):
            above = current()
            async with asyncio.TaskGroup() as group:
                group.create_task(one_turn(each.telemetry))
        await each.clock.interval()

    turn, run = each.sink.spans()
    assert above is not None
    assert run.trace_id == turn.trace_id == remote.trace_id.to_bytes(16)
    assert run.parent_span_id == remote.span_id.to_bytes(8)
    assert turn.parent_span_id == run.span_id == above.span_id.to_bytes(8)


async def one_turn(telemetry: Telemetry) -> None:
    with telemetry.span(Span.MODEL_TURN):
        await asyncio.sleep(0)


async def test_run_has_the_same_trace_after_a_restart() -> None:
    """A run that a crash cut in two is one run; so is its trace, whoever's turn it was."""
    ids = set()
    for _ in range(2):
        each = bench()
        async with at_work(each):
            with each.telemetry.span(Span.RUN, trace_of="run-1"):
                pass
            with each.telemetry.span(Span.RUN):
                pass
        first, second = each.sink.spans()
        ids.add(first.trace_id)
        assert second.trace_id not in ids

    assert len(ids) == 1


async def test_nothing_that_is_set_on_a_span_can_be_content() -> None:
    """Promise 1, adversarial: the canary into every place that a span has, exceptions' messages too."""
    each = bench(known=["assistant"])
    async with at_work(each):
        with pytest.raises(ValueError, match="Jane"):
            spill(each.telemetry)
        told = dict.fromkeys(Attribute, CANARY)
        each.telemetry.record(Span.CONFIG_PUSH, told, parent=None, began_ns=1, ended_ns=2, error=CANARY)
        with pytest.raises(UnavailableError), each.telemetry.span(Span.RUN, told):
            raise UnavailableError(AWAY, reason=CANARY)

    sent = b"".join(request.SerializeToString() for _, request in each.sink.requests)
    assert CANARY.encode() not in sent
    tool, push, run = each.sink.spans()
    assert (tool.name, push.name, run.name) == ("execute_tool", "config.push", "invoke_agent")
    assert attributes(tool) == {"gen_ai.agent.name": "assistant", "error.type": "ValueError"}
    assert (attributes(push), push.status.message) == ({}, "")
    assert attributes(run) == {"error.type": AWAY.code}
    assert not any(span.events or span.links for span in (tool, push, run)), "no exception went along as an event"


def spill(telemetry: Telemetry) -> None:
    with telemetry.span(Span.TOOL_CALL, target=CANARY) as span:
        for key in Attribute:
            span.set(key, CANARY)
        span.fail(CANARY)
        span.set(Attribute.AGENT_NAME, "assistant")
        raise ValueError(CANARY)


async def test_name_stands_in_a_spans_name_where_the_plane_vouches_for_it() -> None:
    """As the conventions for generative AI have it, and only for names of the running configuration."""
    each = bench(known=["assistant"])
    async with at_work(each):
        for target in ("assistant", CANARY):
            with each.telemetry.span(Span.RUN, target=target):
                pass

    assert [span.name for span in each.sink.spans()] == ["invoke_agent assistant", "invoke_agent"]


async def test_environment_cannot_send_telemetry_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_* variables come along with shells and base images; what leaves a site is not theirs to say."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"who={CANARY}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_ATTRIBUTE_COUNT_LIMIT", "0")
    each = bench(known=["assistant"])
    async with at_work(each):
        with each.telemetry.span(Span.RUN, {Attribute.AGENT_NAME: "assistant"}):
            pass

    assert [attributes(span) for span in each.sink.spans()] == [{"gen_ai.agent.name": "assistant"}]
    assert CANARY not in str(each.sink.requests)


# ---- metrics


async def test_metrics_arrive_as_what_they_are() -> None:
    """A counter that arrives as a gauge has no rate; a histogram without bounds has no quantile."""
    since, each = time.time_ns(), bench()
    counter = Counter(Metric.RUNS_FINISHED, "Runs.", labels=(Attribute.STATE_NAME,))
    took = Histogram(Metric.RUN_DURATION, "Runs.", (0.5, 1.0))
    each.meters.add([counter, took, Gauge(Metric.RUNS_ACTIVE, "Now.", lambda: 3), Counter(Metric.RUN_TURNS, "None.")])
    counter.add(2, "succeeded")
    took.record(0.7)
    async with at_work(each):
        await each.clock.interval()
        counter.add(1, "succeeded")

    found = each.sink.metrics()
    (runs,), (duration,) = found["faos.runs.finished"].sum.data_points, found["faos.run.duration"].histogram.data_points
    assert found["faos.runs.finished"].sum.is_monotonic
    assert (runs.as_int, attributes(runs)) == (3, {"faos.state": "succeeded"})
    assert runs.start_time_unix_nano >= since
    assert (list(duration.bucket_counts), list(duration.explicit_bounds)) == ([0, 1, 0], [0.5, 1.0])
    assert found["faos.runs.active"].gauge.data_points[0].as_int == 3
    assert "faos.run.turns" not in found, "what measured nothing says nothing"


# ---- a sink that does not take it


def away_for(times: int) -> Callable[[str], Exception | None]:
    left = [OSError("no route"), UnavailableError(AWAY)] * times
    return lambda signal: left.pop() if left else None


async def test_what_a_sink_did_not_take_comes_again_whole_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that is restarted costs nothing; and says so once, not with each interval."""
    caplog.set_level(logging.INFO, logger="faos_core.telemetry")
    each = bench(fails=away_for(2))
    async with at_work(each):
        for revision in range(5):
            with each.telemetry.span(Span.RUN, {Attribute.REVISION_NUMBER: revision}):
                pass
            await each.clock.interval()

    assert [attributes(span)["faos.revision"] for span in each.sink.spans()] == list(range(5))
    events = [record.getMessage() for record in caplog.records if record.name == "faos_core.telemetry"]
    assert events == ["telemetry.not_taken", "telemetry.taken_again"]
    assert each.count(Metric.TELEMETRY_SENT) == 5
    assert each.count(Metric.TELEMETRY_DROPPED) == 0


async def test_what_waits_is_bounded_and_what_is_lost_is_counted() -> None:
    """A collector that stays away for a month must not eat the node's memory."""
    each = bench(fails=lambda signal: UnavailableError(AWAY))
    for _ in range(WAITING_SPANS + 7):
        with each.telemetry.span(Span.RUN):
            pass
    each.sink.fails = lambda signal: None

    async with at_work(each):
        await each.clock.interval()

    assert len(each.sink.spans()) == WAITING_SPANS
    assert each.count(Metric.TELEMETRY_DROPPED) == 7
    assert each.sink.metrics()["faos.telemetry.dropped"].sum.data_points[0].as_int == 7, (
        "and the collector learns of it"
    )
    assert (
        max(sum(1 for _ in request.resource_spans[0].scope_spans[0].spans) for request in traces(each)) <= BATCH_SPANS
    )


def traces(each: Bench) -> list[Any]:
    return [request for signal, request in each.sink.requests if signal == TRACES]


async def test_what_is_refused_for_good_is_dropped_and_the_rest_goes_on() -> None:
    """One request that a collector can never take must not stand before all that comes after it."""
    each = bench(fails=lambda signal: InvalidError(REFUSED) if signal == TRACES else None)
    async with at_work(each):
        with each.telemetry.span(Span.RUN):
            pass
        await each.clock.interval()
        each.sink.fails = lambda signal: None
        with each.telemetry.span(Span.MODEL_TURN):
            pass

    assert [span.name for span in each.sink.spans()] == ["chat"]
    assert each.count(Metric.TELEMETRY_DROPPED) == 1


async def test_span_that_cannot_be_encoded_is_dropped_alone() -> None:
    """One that began before 1970, as on a machine whose clock lost its battery, must not end all telling."""
    each = bench()
    async with at_work(each):
        with each.telemetry.span(Span.RUN):
            pass
        each.telemetry.record(Span.CONFIG_PUSH, {}, parent=None, began_ns=-5, ended_ns=-1)
        with each.telemetry.span(Span.MODEL_TURN):
            pass
        await each.clock.interval()

        assert {signal for signal, _ in each.sink.requests} == {TRACES, METRICS}
    assert [span.name for span in each.sink.spans()] == ["invoke_agent", "chat"]
    assert each.count(Metric.TELEMETRY_DROPPED) == 1


@pytest.mark.parametrize("defect", [RuntimeError("a bug"), ValueError(CANARY)])
async def test_defect_of_a_sink_does_not_end_the_node(defect: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Telling must never break what is told about, whatever is wrong with the telling."""
    each = bench(fails=lambda signal: defect)
    async with at_work(each):
        await each.clock.interval()
        each.sink.fails = lambda signal: None
        await each.clock.interval()

    assert each.sink.requests, "and it goes on when the defect is gone"
    assert "telemetry.crashed" in [record.getMessage() for record in caplog.records]
    assert CANARY not in [str(vars(record).get("error")) for record in caplog.records]


async def test_who_makes_spans_never_waits_for_a_slow_sink() -> None:
    """A collector that takes a minute must not slow a single run."""
    each = bench(held=asyncio.Event())
    async with at_work(each):
        each.clock.ticks.put_nowait(None)
        async with asyncio.timeout(PATIENCE_S):  # the sink is held for longer than that
            for _ in range(200):
                with each.telemetry.span(Span.RUN):
                    await asyncio.sleep(0)
        assert each.sink.held is not None
        each.sink.held.set()

    assert len(each.sink.spans()) == 200


async def test_last_spans_are_exported_when_the_process_stops() -> None:
    """What led to the end is what somebody looks for."""
    each = bench()
    async with at_work(each):
        with each.telemetry.span(Span.RUN):
            pass

    assert [span.name for span in each.sink.spans()] == ["invoke_agent"]


async def test_stop_does_not_wait_for_a_sink_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging collector must not make systemd kill the node."""
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    each = bench(held=asyncio.Event())

    async with asyncio.timeout(PATIENCE_S):
        async with at_work(each):
            pass

    assert each.sink.requests == []


def test_word_of_ours_is_exported_as_plain_text() -> None:
    """A subclass of str is one that an encoder of somebody else's may not know."""
    each = bench()
    with each.telemetry.span(Span.RUN, {Attribute.STATE_NAME: Word("failed")}):
        pass

    (span,) = each.telemetry._waiting.spans
    assert span.attributes is not None
    assert type(span.attributes["faos.state"]) is str
