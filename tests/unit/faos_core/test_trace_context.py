"""W3C trace context, as it stands in metadata, rows and offers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core import trace_context
from faos_core.trace_context import TraceContext, continuing, current, new_trace, parse

WHOLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.sampled_from([0, 1]))
def test_context_comes_back_as_it_went(trace_id: int, span_id: int, flags: int) -> None:
    """A trace that changes its id on the way is two halves of nothing."""
    context = TraceContext(trace_id, span_id, flags)

    assert parse(str(context)) == context
    assert context.is_sampled == bool(flags)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        WHOLE.upper(),
        WHOLE + "-x",
        WHOLE + "\n",
        "01" + WHOLE[2:],
        WHOLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        WHOLE.replace("00f067aa0ba902b7", "0" * 16),
        "Jane Roe has diabetes",
    ],
)
def test_what_is_no_traceparent_is_no_trace(bad: str) -> None:
    """A caller's metadata goes into a database and to nodes: only numbers in one form may."""
    assert parse(bad) is None


@given(st.text())
def test_parsing_never_fails(text: str) -> None:
    """A malformed trace must not refuse a good apply."""
    found = parse(text)

    assert found is None or str(found)[:52] == text[:52]


def test_unknown_flags_are_dropped() -> None:
    """They mean what nobody here knows."""
    found = parse(WHOLE[:-2] + "ff")

    assert found is not None
    assert found.flags == trace_context.SAMPLED


async def test_context_is_the_tasks_and_its_childrens() -> None:
    """Two runs at once must not trade their traces."""
    one, two = new_trace(), new_trace()

    async def seen() -> TraceContext | None:
        return current()

    async def inside(context: TraceContext) -> list[TraceContext | None]:
        with continuing(context):
            await asyncio.sleep(0)
            return [current(), await asyncio.ensure_future(seen())]

    of_one, of_two = await asyncio.gather(inside(one), inside(two))

    assert (of_one, of_two) == ([one, one], [two, two])
    assert current() is None
