"""Which trace the work at hand belongs to: W3C trace context, and nothing else of a trace.

It costs nothing where nobody traces, needs no library, and goes on where a span begins: in logs, in what a revision is
stored with, in offers. Source: https://www.w3.org/TR/trace-context/ (traceparent).
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass

KEY = "traceparent"  # of gRPC metadata
VARIABLE = "TRACEPARENT"  # of the environment: the trace of who calls the command, for example a pipeline
PATTERN = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and the span in it that what follows belongs to. Numbers as OpenTelemetry has them."""

    trace_id: int
    span_id: int
    flags: int = SAMPLED

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)


_current: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)


def new_trace() -> TraceContext:
    return TraceContext(int.from_bytes(secrets.token_bytes(16)) or 1, int.from_bytes(secrets.token_bytes(8)) or 1)


def parse(traceparent: str) -> TraceContext | None:
    """None for what is no traceparent of version 00: whoever sent it then has no trace."""
    match = PATTERN.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    return TraceContext(trace_id, span_id, flags & SAMPLED) if trace_id and span_id else None


def current() -> TraceContext | None:
    """Of this task, and of those that it starts."""
    return _current.get()


def enter(context: TraceContext | None) -> Token[TraceContext | None]:
    """Work of this task belongs to this trace until `leave`."""
    return _current.set(context)


def leave(token: Token[TraceContext | None]) -> None:
    _current.reset(token)


@contextmanager
def continuing(context: TraceContext | None) -> Iterator[None]:
    """Work inside belongs to this trace; None: to none."""
    token = enter(context)
    try:
        yield
    finally:
        leave(token)
