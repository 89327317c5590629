"""To how many nodes a push goes at once, so that what a thousand of them answer does not hold up everything else.

gRPC hands on what came over all connections of a process in the order in which it came. Whoever calls meanwhile waits
for the answers that came before, and for more of them each time it passes the event loop; so only so many nodes may be
about to answer, and only few while somebody calls: few cost more CPU a node, because less is written together. A node
that does not answer soon, however far away it is, gives its place up.
"""

import asyncio
from collections.abc import Hashable
from contextlib import suppress

PLACES = 32  # answers that a caller may find before it: half a millisecond each
FEW_PLACES = 2  # that it may find each time after that
PATIENCE_S = 0.02
ROOM_S = 0.5  # that there are few after a call began: it is over by then, and who calls often calls again


class PushWindow:
    """Belongs to one event loop. `enter` before an offer, `leave` when the node was heard."""

    def __init__(self, places: int = PLACES, patience_s: float = PATIENCE_S, *, few_places: int = FEW_PLACES) -> None:
        self._places = places
        self._few_places = few_places
        self._few_until_s = 0.0  # of the loop's clock
        self._patience_s = patience_s
        self._entered_s: dict[Hashable, float] = {}  # of the loop's clock, oldest first
        self._left = asyncio.Event()

    async def enter(self, node: Hashable) -> None:
        """Wait for a place. Cancel-safe."""
        loop = asyncio.get_running_loop()
        while node not in self._entered_s and len(self._entered_s) >= self._places_at(loop.time()):
            oldest = next(iter(self._entered_s))
            wait_s = self._entered_s[oldest] + self._patience_s - loop.time()
            if wait_s <= 0:
                del self._entered_s[oldest]
                continue
            self._left.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._left.wait()
        self._entered_s.pop(node, None)  # the oldest stays first
        self._entered_s[node] = loop.time()

    def make_room(self) -> None:
        """Somebody calls who is to be answered soon."""
        self._few_until_s = asyncio.get_running_loop().time() + ROOM_S

    def _places_at(self, now_s: float) -> int:
        return self._few_places if now_s < self._few_until_s else self._places

    def leave(self, node: Hashable) -> None:
        """Idempotent; also for one that never entered."""
        if self._entered_s.pop(node, None) is not None:
            self._left.set()
