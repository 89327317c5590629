"""Telemetry on: the one module that knows OpenTelemetry's SDK. Spans and metrics go, encoded as OTLP, to one sink.

Decided here, not by the environment: no OTEL_* variable has an effect but OTEL_SDK_DISABLED=true, which can only take
spans away. Nothing global is set, so what libraries trace for themselves is not ours to export, and no exporter of
OpenTelemetry's is used: the sink is the only way out, and at a site that is a file or a door.

What waits is bounded. While the sink fails, spans wait up to that bound, then the newest are dropped and counted; what
the sink refuses for good is dropped and counted too; who makes spans never waits.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, Protocol, Self, cast

from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import export as sdk_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as SdkSpan

from faos_core import names, trace_context
from faos_core.clock import Clock
from faos_core.errors import FaosError, InvalidError
from faos_core.meters import Counter, Gauge, Histogram, Instrument, Meters
from faos_core.names import Attribute, Metric, Span
from faos_core.trace_context import TraceContext
from faos_core.tracing import Value, Vouches, Word, admitted

log = logging.getLogger(__name__)

SCOPE = "faos"
WAITING_SPANS = 4096
BATCH_SPANS = 512  # of one request
FLUSH_S = 3.0  # that the last of it may take when the process stops
LIMITS = SpanLimits(
    max_attributes=32,
    max_events=0,
    max_links=0,
    max_span_attributes=32,
    max_event_attributes=0,
    max_link_attributes=0,
    max_attribute_length=128,
    max_span_attribute_length=128,
)
TRACES, METRICS = "traces", "metrics"


class Sink(Protocol):
    """Where OTLP goes."""

    async def send(self, signal: str, request: Message) -> None:
        """signal: "traces" or "metrics". Bounded in time. Raises InvalidError: this is never taken; FaosError, OSError:
        not taken, it comes again."""


class TraceIds(RandomIdGenerator):
    """Random, but for a span that belongs to something with an id: the same trace after a restart."""

    def __init__(self) -> None:
        self.wanted: ContextVar[int] = ContextVar("wanted_trace_id", default=0)

    def generate_trace_id(self) -> int:
        return self.wanted.get() or super().generate_trace_id()


class Waiting(SpanProcessor):
    """Spans that are over, until the sink has them. At most WAITING_SPANS; beyond, the newest are dropped."""

    def __init__(self, dropped: Counter) -> None:
        self.spans: deque[ReadableSpan] = deque()
        self._dropped = dropped

    def on_end(self, span: ReadableSpan) -> None:
        if len(self.spans) < WAITING_SPANS:
            self.spans.append(span)
        else:
            self._dropped.add(1, TRACES)


class Telemetry:
    """Traces, and exports what was traced and measured. Implements tracing.Tracer; a supervised service.

    `span` and `record` may be called before it runs and while it stops. Cancelling `run` exports what there is, 3 s at
    most.
    """

    name = "telemetry"

    def __init__(
        self,
        sink: Sink,
        meters: Meters,
        *,
        resource: Mapping[str, str],
        vouches: Vouches,
        clock: Clock,
        interval_s: float,
    ) -> None:
        """resource: who this is, in attributes of OpenTelemetry. vouches: whether a name is one of the plane's own."""
        self.ready = asyncio.Event()
        self._sink = sink
        self._clock = clock
        self._interval_s = interval_s
        self._vouches = vouches
        self._meters = meters
        self._began_ns = time.time_ns()
        self._resource = Resource({str(key): value for key, value in resource.items()})
        self._is_failing = False
        labels = (Attribute.SIGNAL,)
        self._sent = Counter(Metric.TELEMETRY_SENT, "Spans and metrics that the sink took.", labels=labels)
        self._dropped = Counter(Metric.TELEMETRY_DROPPED, "What had no room, or was refused.", labels=labels)
        meters.add([self._sent, self._dropped])
        self._waiting = Waiting(self._dropped)
        self._ids = TraceIds()
        provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=self._resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=LIMITS,
            meter_provider=NoOpMeterProvider(),
        )
        provider.add_span_processor(self._waiting)
        self._tracer = provider.get_tracer(SCOPE)

    # ---- spans

    def span(
        self,
        name: Span,
        attributes: Mapping[Attribute, Value] | None = None,
        *,
        parent: TraceContext | None = None,
        target: str = "",
        trace_of: str = "",
    ) -> AbstractContextManager["Traced"]:
        above = parent or trace_context.current()
        known = f"{name} {target}" if target and self._vouches(target) else str(name)
        if above is not None or not trace_of:
            span = self._tracer.start_span(known, context_of(above), record_exception=False)
        else:
            token = self._ids.wanted.set(int.from_bytes(sha256(trace_of.encode()).digest()[:16]))
            span = self._tracer.start_span(known, context_of(None), record_exception=False)
            self._ids.wanted.reset(token)
        traced = Traced(span, self._vouches)
        for key, value in (attributes or {}).items():
            traced.set(key, value)
        return traced

    def record(
        self,
        name: Span,
        attributes: Mapping[Attribute, Value],
        *,
        parent: TraceContext | None,
        began_ns: int,
        ended_ns: int,
        error: str = "",
    ) -> None:
        span = self._tracer.start_span(name, context_of(parent), start_time=began_ns, record_exception=False)
        traced = Traced(span, self._vouches)
        for key, value in attributes.items():
            traced.set(key, value)
        if error:
            traced.fail(error)
        span.end(ended_ns)

    # ---- export

    async def run(self) -> None:
        self.ready.set()
        try:
            while True:
                await self._clock.sleep(self._interval_s)
                await self._export()
        finally:
            await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._export()
        except TimeoutError:
            log.warning("telemetry.not_flushed", extra={names.SIZE: len(self._waiting.spans)})

    async def _export(self) -> None:
        """Everything that waits, or until the sink fails: then the rest waits for the next time."""
        try:
            while batch := self._first():
                good, request = await asyncio.to_thread(encodable, batch)
                if good < len(batch):
                    self._dropped.add(len(batch) - good, TRACES)
                    log.warning("telemetry.not_encodable", extra={names.SIZE: len(batch) - good})
                await self._send(TRACES, request, good)
                for _ in batch:
                    self._waiting.spans.popleft()
            await self._send(METRICS, encode_metrics(self._measured()), 1)
        except (FaosError, OSError) as error:
            self._failed(error)
        except Exception as error:  # the supervisor of the export: telling must not end what is told about
            log.error("telemetry.crashed", extra={names.ERROR: type(error).__name__}, exc_info=error)
        else:
            self._recovered()

    async def _send(self, signal: str, request: Message, count: int) -> None:
        try:
            await self._sink.send(signal, request)
        except InvalidError as error:
            self._dropped.add(count, signal)
            log.warning("telemetry.refused", extra={names.CODE: error.code.code, names.SIZE: count})
        else:
            self._sent.add(count, signal)

    def _first(self) -> Sequence[ReadableSpan]:
        spans = self._waiting.spans
        return [spans[place] for place in range(min(BATCH_SPANS, len(spans)))]

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            code = error.code.code if isinstance(error, FaosError) else type(error).__name__
            log.warning("telemetry.not_taken", extra={names.CODE: code, names.SIZE: len(self._waiting.spans)})
        self._is_failing = True

    def _recovered(self) -> None:
        if self._is_failing:
            log.info("telemetry.taken_again")
        self._is_failing = False

    def _measured(self) -> sdk_metrics.MetricsData:
        times = (self._began_ns, time.time_ns())
        found = [metric for each in self._meters.instruments if (metric := metric_of(each, *times))]
        scope = sdk_metrics.ScopeMetrics(InstrumentationScope(SCOPE), found, "")
        return sdk_metrics.MetricsData([sdk_metrics.ResourceMetrics(self._resource, [scope], "")])


class Traced:
    """A span that is under way. `with`: what is done inside belongs to it."""

    def __init__(self, span: SdkSpan, vouches: Vouches) -> None:
        self._span = span
        self._vouches = vouches
        self._token: Any = None

    def __enter__(self) -> Self:
        found = self._span.get_span_context()
        flags = int(found.trace_flags) & trace_context.SAMPLED
        self._token = trace_context.enter(TraceContext(found.trace_id, found.span_id, flags))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        trace_context.leave(self._token)
        if error is not None:
            self.fail(error.code.code if isinstance(error, FaosError) else Word(type(error).__name__))
        self._span.end()

    def set(self, key: Attribute, value: Value) -> None:
        if admitted(key, value, self._vouches):
            self._span.set_attribute(key.value, str(value) if isinstance(value, str) else value)

    def fail(self, code: str) -> None:
        self.set(Attribute.ERROR_TYPE, code)
        self._span.set_status(Status(StatusCode.ERROR))


def context_of(parent: TraceContext | None) -> Any:
    """OpenTelemetry's, of its own, so that nothing of the task's comes in."""
    if parent is None:
        return {}
    above = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
    return set_span_in_context(NonRecordingSpan(above), cast(Any, {}))


# ---- metrics


def metric_of(instrument: Instrument, began_ns: int, now_ns: int) -> sdk_metrics.Metric | None:
    """None for an instrument that has measured nothing yet."""
    data: Any
    if isinstance(instrument, Histogram):
        data = histogram_of(instrument, began_ns, now_ns)
    else:
        points = [
            sdk_metrics.NumberDataPoint(attributes_of(instrument, labels), began_ns, now_ns, plain(value))
            for labels, value in instrument.values().items()
        ]
        grows = not isinstance(instrument, Gauge) or instrument.is_sum
        cumulative = sdk_metrics.AggregationTemporality.CUMULATIVE
        data = sdk_metrics.Sum(points, cumulative, True) if grows else sdk_metrics.Gauge(points)
    if not data.data_points:
        return None
    return sdk_metrics.Metric(instrument.name.value, instrument.about, instrument.unit, data)


def histogram_of(instrument: Histogram, began_ns: int, now_ns: int) -> sdk_metrics.Histogram:
    points = [
        sdk_metrics.HistogramDataPoint(
            attributes=attributes_of(instrument, labels),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=cell.count,
            sum=cell.sum,
            bucket_counts=cell.counts,
            explicit_bounds=instrument.bounds,
            min=cell.least,
            max=cell.most,
        )
        for labels, cell in instrument.cells().items()
    ]
    return sdk_metrics.Histogram(points, sdk_metrics.AggregationTemporality.CUMULATIVE)


def attributes_of(instrument: Instrument, labels: Iterable[str]) -> dict[str, str]:
    return {key.value: value for key, value in zip(instrument.labels, labels, strict=False)}


def plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def encodable(spans: Sequence[ReadableSpan]) -> tuple[int, Message]:
    """How many of them OTLP can hold, and those encoded: one that it cannot must not keep back all others."""
    try:
        return len(spans), encode_spans(spans)
    except (TypeError, ValueError):
        good = [span for span in spans if _is_encodable(span)]
        return len(good), encode_spans(good)


def _is_encodable(span: ReadableSpan) -> bool:
    try:
        encode_spans([span])
    except (TypeError, ValueError):
        return False
    return True
