"""When to dial again: exponential with full jitter. Source: DESIGN section 5; AWS Architecture Blog 2015-03."""

import random

FIRST_S, FACTOR, CAP_S, STABLE_S = 1.0, 1.6, 120.0, 60.0
RETRY_AFTER_CAP_S = 3600.0  # whoever holds the control plane must not send nodes away for good


class Backoff:
    """Delays between attempts to connect. Not shared between links."""

    def __init__(self, rng: random.Random | None = None, *, cap_s: float = CAP_S) -> None:
        """cap_s: the longest delay, at least FIRST_S."""
        self._cap_s = cap_s
        self._rng = rng or random.Random()  # noqa: S311  # spreads load, keeps no secret
        self._ceiling_s = FIRST_S

    def next_delay_s(self, *, lasted_s: float, retry_after_s: float = 0.0) -> float:
        """Seconds to wait after a link that lasted `lasted_s`; at least what the server asked for, up to an hour."""
        if lasted_s >= STABLE_S:
            self._ceiling_s = FIRST_S
        delay_s = self._rng.uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self._cap_s, self._ceiling_s * FACTOR)
        return min(retry_after_s, RETRY_AFTER_CAP_S) + delay_s
