"""When to renew, as a pure function of both clocks. Source: DESIGN section 4.

Age is what passed since the certificate was made, by whichever clock says more: the wall clock goes on in a suspend,
the monotonic clock does not jump. A jump of the wall clock forward makes at most one renewal early, because the next
certificate's age is counted from the clock as it is then; a jump back delays none.
"""

import random
from dataclasses import dataclass
from datetime import datetime

EARLIEST, LATEST = 0.45, 0.55  # of the lifetime; jittered, so that a fleet that joined at once does not renew at once
URGENT = 0.9
LEAST_APART = 1 / 50  # of the lifetime, between two requests, whatever the clocks do
MOST_APART = 1 / 16
LEAST_S = 0.2


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one certificate, from the moment when it was taken up."""

    lifetime_s: float
    age_s: float  # at that moment, 0 for a fresh one
    wall_at: datetime
    monotonic_at_s: float
    due_at: float  # part of the lifetime

    @classmethod
    def begin(
        cls, lifetime_s: float, age_s: float, *, wall: datetime, monotonic_s: float, rng: random.Random
    ) -> "Schedule":
        """age_s: by the wall clock, which may be wrong: brought within the lifetime."""
        age_s = min(max(age_s, 0.0), lifetime_s)
        return cls(lifetime_s, age_s, wall, monotonic_s, rng.uniform(EARLIEST, LATEST))

    def age(self, wall: datetime, monotonic_s: float) -> float:
        """Seconds since the certificate was made."""
        passed_s = max(0.0, (wall - self.wall_at).total_seconds(), monotonic_s - self.monotonic_at_s)
        return self.age_s + passed_s

    def is_due(self, wall: datetime, monotonic_s: float) -> bool:
        return self.age(wall, monotonic_s) >= self.due_at * self.lifetime_s

    def is_urgent(self, wall: datetime, monotonic_s: float) -> bool:
        """Less than a tenth of the lifetime is left."""
        return self.age(wall, monotonic_s) >= URGENT * self.lifetime_s

    def is_over(self, wall: datetime, monotonic_s: float) -> bool:
        return self.age(wall, monotonic_s) >= self.lifetime_s

    def look_again_s(self) -> float:
        """How long to sleep between two looks at the clocks: a suspend or a jump is seen after so long."""
        return max(LEAST_S / 2, min(30.0, self.lifetime_s * LEAST_APART / 2))

    def retry_s(self, failures: int, rng: random.Random) -> float:
        """Seconds after the n-th failed request: with jitter, longer each time, but soon enough for many more."""
        ceiling = min(LEAST_APART * 2 ** min(failures, 8), MOST_APART) * self.lifetime_s
        return max(LEAST_S, rng.uniform(LEAST_APART * self.lifetime_s / 2, ceiling))
