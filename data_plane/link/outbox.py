"""What became of offers, waiting for a session to take it up."""

import asyncio
from collections.abc import AsyncIterator

from data_plane.link.apply_machine import TERMINAL
from faos.tunnel.v1.tunnel_pb2 import ApplyStatus


class StatusOutbox:
    """The newest status of each offer, oldest offer first. Putting never waits and never fails.

    Overflow: beyond `limit` offers the oldest that has not ended is dropped, then the oldest.
    """

    def __init__(self, *, limit: int = 64) -> None:
        self._limit = limit
        self._pending: dict[bytes, ApplyStatus] = {}
        self._waiting = asyncio.Event()

    def put(self, status: ApplyStatus) -> None:
        """Replaces what the same offer had waiting."""
        self._pending[status.nonce] = status
        if len(self._pending) > self._limit:
            del self._pending[self._least()]
        self._waiting.set()

    def _least(self) -> bytes:
        unfinished = (nonce for nonce, status in self._pending.items() if status.state not in TERMINAL)
        return next(unfinished, next(iter(self._pending)))

    async def take(self) -> ApplyStatus:
        """The next status; waits for one. Cancel-safe: what was not returned stays. One taker at a time."""
        while not self._pending:
            self._waiting.clear()
            await self._waiting.wait()
        return self._pending.pop(next(iter(self._pending)))

    def clear(self) -> None:
        """Forget what waits: nonces die with their stream, and the Hello of the next one carries the facts."""
        self._pending.clear()

    async def __aiter__(self) -> AsyncIterator[ApplyStatus]:
        """Endless; break out or cancel to stop."""
        while True:
            yield await self.take()
