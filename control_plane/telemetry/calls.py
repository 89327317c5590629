"""Calls of the admin API: how long each took and how it ended, and the trace that its caller began."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc

from faos_core import trace_context
from faos_core.meters import FAST_S, Histogram
from faos_core.names import Attribute, Metric, Span
from faos_core.tracing import OFF, Tracer, Word

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class CallObserver:
    """One for the admin server. Where nobody traces, the caller's trace still goes on into what the call makes."""

    def __init__(self, tracer: Tracer = OFF) -> None:
        self._tracer = tracer
        labels = (Attribute.RPC_METHOD, Attribute.RPC_STATUS)
        self.duration = Histogram(Metric.ADMIN_RPC_DURATION, "Time of an admin call.", FAST_S, labels=labels)

    def observed(self, method: str, metadata: Any, behaviour: Behaviour) -> Behaviour:
        """method: "/package.Service/Method" of the proto, so a word of ours."""
        name = method.rsplit(".", 1)[-1]

        async def observe(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began_s, status = time.perf_counter(), "OK"
            attributes = {Attribute.RPC_METHOD: Word(name)}
            with (
                trace_context.continuing(traceparent_of(metadata)),
                self._tracer.span(Span.ADMIN_RPC, attributes) as span,
            ):
                try:
                    return await behaviour(request, context)
                except BaseException:
                    status = status_of(context)
                    span.set(Attribute.RPC_STATUS, Word(status))
                    raise
                finally:
                    self.duration.record(time.perf_counter() - began_s, name, status)

        return observe


def traceparent_of(metadata: Any) -> trace_context.TraceContext | None:
    """Of exactly one well-formed entry."""
    values = [value for key, value in metadata or () if key == trace_context.KEY]
    return trace_context.parse(values[0]) if len(values) == 1 and isinstance(values[0], str) else None


def status_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """How an aborted call ends; CANCELLED where nobody said."""
    code: Any = cast(Any, context).code()
    for each in grpc.StatusCode:
        if code in (each, each.value[0]) and each is not grpc.StatusCode.OK:
            return each.name
    return grpc.StatusCode.CANCELLED.name
