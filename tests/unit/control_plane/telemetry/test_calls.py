"""Calls of the admin API, observed: the caller's trace goes on, durations by method and end, and nothing is changed."""

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from control_plane.telemetry.calls import CallObserver, traceparent_of
from faos_core import trace_context
from faos_core.trace_context import KEY, TraceContext, current, new_trace

METHOD = "/faos.admin.v1.ResourceService/ApplyResources"
WHOLE = str(new_trace())


@dataclass
class Context:
    """The part of a call's context that is looked at."""

    ended_with: Any = None

    def code(self) -> Any:
        return self.ended_with


async def observe(metadata: Any, behaviour: Any, context: Context | None = None) -> CallObserver:
    observer = CallObserver()
    await observer.observed(METHOD, metadata, behaviour)(None, context or Context())  # type: ignore[arg-type]  # a part of one
    return observer


async def test_callers_trace_goes_on_into_what_the_call_makes() -> None:
    """A revision is stored with the trace of the pipeline that applied it, also where nobody traces here."""
    seen: list[TraceContext | None] = []

    async def behaviour(request: Any, context: Any) -> None:
        seen.append(current())

    await observe([("authorization", "x"), (KEY, WHOLE)], behaviour)

    assert [str(each) for each in seen] == [WHOLE]
    assert current() is None, "and ends with it"


@pytest.mark.parametrize(
    "metadata",
    [None, [], [(KEY, "Jane Roe has diabetes")], [(KEY, WHOLE), (KEY, WHOLE)], [(KEY, WHOLE.encode())]],
)
def test_what_is_no_single_traceparent_is_none(metadata: Any) -> None:
    """A caller can say anything; only numbers get into rows and offers."""
    assert traceparent_of(metadata) is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (grpc.StatusCode.NOT_FOUND.value[0], "NOT_FOUND"),
        (None, "CANCELLED"),
        (0, "CANCELLED"),
    ],
)
async def test_end_of_a_call_is_counted_as_what_it_was(code: Any, said: str) -> None:
    """gRPC says a code now as itself, now as its number; a caller that hung up said none."""

    class EndedError(Exception):
        pass

    async def behaviour(request: Any, context: Any) -> None:
        raise EndedError

    observer = CallObserver()
    with pytest.raises(EndedError):
        await observer.observed(METHOD, [], behaviour)(None, Context(code))  # type: ignore[arg-type]  # a part of one

    assert list(observer.duration.cells()) == [("ResourceService/ApplyResources", said)]


async def test_good_call_is_timed_and_its_answer_passed_on() -> None:
    """What observes must not be noticed."""

    async def behaviour(request: Any, context: Any) -> str:
        return "answer"

    observer = CallObserver()
    answer = await observer.observed(METHOD, [], behaviour)(None, Context())  # type: ignore[arg-type]  # a part of one

    ((labels, cell),) = observer.duration.cells().items()
    assert answer == "answer"
    assert (labels, cell.count) == (("ResourceService/ApplyResources", "OK"), 1)
    assert trace_context.current() is None
