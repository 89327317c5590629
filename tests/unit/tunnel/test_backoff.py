"""Dialling again: neither a storm nor never."""

import random

from tunnel.backoff import CAP_S, FIRST_S, RETRY_AFTER_CAP_S, STABLE_S, Backoff


def test_delays_grow_to_the_cap_and_start_anew_after_a_stable_link() -> None:
    """A thousand nodes of a restarted control plane must not come back in the same second, nor stay away."""
    backoff = Backoff(random.Random(1))

    delays = [backoff.next_delay_s(lasted_s=0) for _ in range(200)]

    assert delays[0] <= FIRST_S
    assert CAP_S / 2 < max(delays) <= CAP_S
    assert backoff.next_delay_s(lasted_s=STABLE_S) <= FIRST_S


def test_server_may_ask_for_minutes_and_not_for_ever() -> None:
    """Drain with 2^32 - 1 seconds from a hijacked control plane would outlive its recovery by a century."""
    backoff = Backoff(random.Random(1))

    assert 300 <= backoff.next_delay_s(lasted_s=0, retry_after_s=300) <= 300 + CAP_S
    assert backoff.next_delay_s(lasted_s=0, retry_after_s=2**32 - 1) <= RETRY_AFTER_CAP_S + CAP_S


def test_an_operator_sets_how_long_a_node_stays_away_at_most() -> None:
    """A small site need not wait two minutes after its control plane is back."""
    backoff = Backoff(random.Random(1), cap_s=3.0)

    delays = [backoff.next_delay_s(lasted_s=0) for _ in range(200)]

    assert 2.0 < max(delays) <= 3.0
