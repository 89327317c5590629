"""How many refused attempts are recorded one by one: whoever has no token must not be able to fill the disk.

What is done is always recorded. What was refused is, too, up to a rate for each actor; beyond it attempts are counted,
and the count is recorded. All who show no valid token are one actor.
"""

from dataclasses import dataclass

AT_ONCE = 100  # of one actor, after a quiet time
EVERY_S = 6.0  # and one more each
MOST_ACTORS = 1000  # remembered; beyond, the one that was quiet for longest is forgotten


@dataclass(slots=True)
class Allowance:
    """Of one actor."""

    left: float
    at_s: float  # monotonic
    left_out: int = 0  # attempts since the last count was recorded


class RefusalLimit:
    """Pure but for what it remembers. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._allowances: dict[str, Allowance] = {}

    def allows(self, actor: str, now_s: float) -> bool:
        """Whether this attempt is recorded; it is counted otherwise."""
        allowance = self._allowances.pop(actor, None) or Allowance(AT_ONCE, now_s)
        self._allowances[actor] = allowance  # the newest stand last
        if len(self._allowances) > MOST_ACTORS:
            self._forget_one()
        allowance.left = min(AT_ONCE, allowance.left + (now_s - allowance.at_s) / EVERY_S)
        allowance.at_s = now_s
        if allowance.left < 1:
            allowance.left_out += 1
            return False
        allowance.left -= 1
        return True

    def counts(self) -> dict[str, int]:
        """By actor, the attempts that were left out; from here on they are counted anew."""
        counts = {actor: each.left_out for actor, each in self._allowances.items() if each.left_out}
        for actor in counts:
            self._allowances[actor].left_out = 0
        return counts

    def _forget_one(self) -> None:
        quiet = next((actor for actor, each in self._allowances.items() if not each.left_out), None)
        if quiet is not None:
            del self._allowances[quiet]
