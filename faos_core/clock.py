"""Time as a dependency, so that tests decide it."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now(self) -> datetime:
        """Aware UTC wall time."""

    def monotonic_s(self) -> float:
        """Seconds that never go back, from an arbitrary start."""

    async def sleep(self, duration_s: float) -> None:
        """Return after `duration_s` seconds of monotonic time. Cancel-safe."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
