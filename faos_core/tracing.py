"""Spans: how the parts of a plane say what they are doing, and what they may say.

A span has one of our names, numbers, and words that somebody vouches for: nothing else can get into it, whoever sets
it. There is no way to give it content, an event or a message. Where nobody traces, OFF stands in and costs next to
nothing; the one who traces is telemetry.py.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Final, Protocol, Self

from faos_core.errors import REGISTRY
from faos_core.names import Attribute, Span
from faos_core.trace_context import TraceContext

Value = str | int | float | bool
Vouches = Callable[[str], bool]
MOST_CHARACTERS = 128
OWN_ID = re.compile(r"[a-z]+-[0-9a-f]{24}")  # as faos_core.ids.new_id makes them


class Kind(Enum):
    """What the value of an attribute must be, or the attribute is left out."""

    NUMBER = "number"
    NAME = "name"  # that the plane vouches for: of a resource, a node, a site
    WORD = "word"  # one of ours: a state, a method, an operation
    ERROR = "error"  # a code of the error registry
    OWN_ID = "own id"  # in the form of ids that we make


KINDS: Mapping[Attribute, Kind] = {
    Attribute.AGENT_NAME: Kind.NAME,
    Attribute.ERROR_TYPE: Kind.ERROR,
    Attribute.INPUT_TOKENS: Kind.NUMBER,
    Attribute.MODEL_NAME: Kind.NAME,
    Attribute.NODE_NAME: Kind.NAME,
    Attribute.OPERATION_NAME: Kind.WORD,
    Attribute.OUTPUT_TOKENS: Kind.NUMBER,
    Attribute.REVISION_NUMBER: Kind.NUMBER,
    Attribute.RPC_METHOD: Kind.WORD,
    Attribute.RPC_STATUS: Kind.WORD,
    Attribute.RUN_NUMBER: Kind.OWN_ID,
    Attribute.SITE_NAME: Kind.NAME,
    Attribute.STATE_NAME: Kind.WORD,
    Attribute.STEP_NUMBER: Kind.NUMBER,
    Attribute.TENANT_NAME: Kind.NAME,
    Attribute.TOOL_NAME: Kind.NAME,
    Attribute.TOOL_SERVER_NAME: Kind.NAME,
}


class Word(str):
    """A word that stands in our own source. Make one only of a constant, an enum's member or a descriptor's name."""

    __slots__ = ()


class OpenSpan(Protocol):
    """A span that is under way."""

    def set(self, key: Attribute, value: Value) -> None:
        """What is not admitted is left out, without a word: telling must not break what is told about."""

    def fail(self, code: str) -> None:
        """It came to nothing. code: of the error registry, or the name of an exception's class."""


class Tracer(Protocol):
    """Makes spans. For use on the event loop of its plane."""

    def span(
        self,
        name: Span,
        attributes: Mapping[Attribute, Value] | None = None,
        *,
        parent: TraceContext | None = None,
        target: str = "",
        trace_of: str = "",
    ) -> AbstractContextManager[OpenSpan]:
        """What happens while it is open belongs to it; what is raised through it is told by its code alone.

        parent: None is what is under way. target: the name of what the span is about, as the conventions for
        generative AI append it. trace_of: an id of ours that always gives the same trace, where there is no parent.
        """

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
        """A span that is over. Times: nanoseconds since 1970."""


class _Nothing:
    """A span of nobody's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def set(self, key: Attribute, value: Value) -> None:
        return None

    def fail(self, code: str) -> None:
        return None


class _Off:
    """Traces nothing."""

    _nothing = _Nothing()

    def span(
        self,
        name: Span,
        attributes: Mapping[Attribute, Value] | None = None,
        *,
        parent: TraceContext | None = None,
        target: str = "",
        trace_of: str = "",
    ) -> _Nothing:
        return self._nothing

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
        return None


OFF: Final[Tracer] = _Off()


def admitted(key: Attribute, value: Value, vouches: Vouches) -> bool:
    """Whether an attribute may say this."""
    kind = KINDS.get(key)
    if kind is Kind.NUMBER:
        return isinstance(value, int | float)
    if kind is None or not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        return False
    match kind:
        case Kind.NAME:
            return vouches(value)
        case Kind.ERROR:
            return value in REGISTRY or isinstance(value, Word)
        case Kind.OWN_ID:
            return bool(OWN_ID.fullmatch(value))
        case _:
            return isinstance(value, Word)
