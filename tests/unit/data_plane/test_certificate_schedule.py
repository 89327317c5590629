"""When certificates are renewed, over clocks that jump, stop and disagree."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from data_plane.identity.schedule import EARLIEST, LATEST, Schedule

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY_S = 24 * 3600.0
JUMPS = st.lists(
    st.tuples(st.floats(0, 0.2), st.sampled_from([-DAY_S, 0.0, 0.0, 0.0, DAY_S])), min_size=80, max_size=80
)


def begin(wall: datetime, monotonic_s: float, seed: int, lifetime_s: float = DAY_S) -> Schedule:
    return Schedule.begin(lifetime_s, 0.0, wall=wall, monotonic_s=monotonic_s, rng=random.Random(seed))


@given(JUMPS, st.integers())
def test_clock_jumps_neither_skip_a_renewal_nor_storm(steps: list[tuple[float, float]], seed: int) -> None:
    """±1 day at any moment: none is overdue in real time, and each renewal has time or a jump as its cause."""
    real_s, offset_s, renewals, jumps_ahead, last_s = 0.0, 0.0, 0, 0, 0.0
    schedule = begin(START, 0.0, seed)
    for part, jump_s in steps:
        real_s += part * DAY_S
        offset_s += jump_s
        jumps_ahead += jump_s > 0
        wall = START + timedelta(seconds=real_s + offset_s)
        if schedule.is_due(wall, real_s):
            assert real_s - last_s <= (LATEST + 0.2) * DAY_S
            schedule, renewals, last_s = begin(wall, real_s, seed + renewals), renewals + 1, real_s
            assert not schedule.is_due(wall, real_s), "a fresh certificate is not due, whatever the clock says"

    assert real_s - last_s <= LATEST * DAY_S + 0.2 * DAY_S
    assert renewals <= real_s / (EARLIEST * DAY_S) + jumps_ahead + 1


@given(st.floats(0, 10 * DAY_S), st.integers())
def test_a_suspend_is_seen(asleep_s: float, seed: int) -> None:
    """The monotonic clock stands still while a laptop sleeps; the certificate ages."""
    schedule = begin(START, 7.0, seed)

    assert schedule.is_due(START + timedelta(seconds=asleep_s), 7.0) == (asleep_s >= schedule.due_at * DAY_S)


@given(st.integers(1, 20), st.integers(), st.floats(2, 90 * DAY_S))
def test_retries_spread_and_leave_room_for_more(failures: int, seed: int, lifetime_s: float) -> None:
    """A control plane that comes back must not meet the whole fleet at once, nor must a node ask too seldom."""
    wait_s = begin(START, 0.0, seed, lifetime_s).retry_s(failures, random.Random(seed))

    assert 0.2 <= wait_s <= max(0.2, lifetime_s / 16)
