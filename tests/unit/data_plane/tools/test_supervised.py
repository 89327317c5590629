"""How long a server that fails is left alone."""

from hypothesis import given
from hypothesis import strategies as st

from data_plane.tools.supervised import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pause_is_bounded_on_both_sides(attempt: int, jitter: float) -> None:
    """Never at once (a server that dies at start would burn a core), never so long that it seems gone for good."""
    assert FIRST_PAUSE_S / 2 <= pause_s(attempt, jitter) <= LONGEST_PAUSE_S


@given(st.integers(0, 100), st.floats(0, 1))
def test_pause_never_shrinks_with_more_failures(attempt: int, jitter: float) -> None:
    """The more often it failed, the longer it is left alone."""
    assert pause_s(attempt + 1, jitter) >= pause_s(attempt, jitter)
