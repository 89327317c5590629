"""Which fault comes when, as a pure function of the seed.

Each fault draws what it needs from (seed, its number) alone, so that one of them can be replayed without those before.
"""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done to the fleet. Each line of the report is one of these."""

    KILL_NODE = "kill -9 of a node"
    KILL_STARTING_NODE = "kill -9 of a node that starts"
    KILL_CLOUD = "kill -9 of the control plane"
    KILL_BOTH = "kill -9 of everything"
    PAUSE_NODE = "node stopped and continued"
    PAUSE_CLOUD = "control plane stopped and continued"
    CUT = "network unreachable"
    SILENCE = "network swallows packets"
    DISK_FULL = "disk full at a node"
    CLOCK_NODE = "clock of a node off by a day"
    CLOCK_CLOUD = "clock of the control plane off by a day"
    CORRUPT_CONFIG = "configuration cache damaged"
    TORN_LEDGER = "ledger with an unfinished tail"
    DAMAGED_LEDGER = "ledger damaged"
    DATABASE_GONE = "PostgreSQL gone and back"


CLOCK = frozenset({Kind.CLOCK_NODE, Kind.CLOCK_CLOUD})


@dataclass(frozen=True, slots=True)
class Fault:
    """One of a schedule. `node` is the place of the node that it strikes, where it strikes one."""

    seed: int
    number: int
    kind: Kind
    node: int

    def chance(self) -> random.Random:
        """The same numbers each time."""
        return random.Random(f"{self.seed}/{self.number}")

    @property
    def replay(self) -> str:
        return f"make chaos SEED={self.seed} FIRST={self.number} FAULTS=1"


def schedule(seed: int, *, first: int, count: int, nodes: int, kinds: list[Kind]) -> list[Fault]:
    """Faults number `first` to `first + count - 1`. Every kind comes once before one comes twice."""
    return [_fault(seed, number, nodes, kinds) for number in range(first, first + count)]


def _fault(seed: int, number: int, nodes: int, kinds: list[Kind]) -> Fault:
    deck = list(kinds)
    random.Random(f"{seed}/deck {number // len(deck)}").shuffle(deck)
    return Fault(seed, number, deck[number % len(deck)], random.Random(f"{seed}/{number}/node").randrange(nodes))
