"""Which definition of each tool this site has accepted: the first that it saw, until a person accepts another.

A pin belongs to what the site itself named, a program or an endpoint, and not to the ToolServer that refers to it: a
revision cannot shake it off by another name.
"""

from collections.abc import Mapping
from typing import Protocol

import sqlalchemy as sa

from data_plane.tools.models import tool_pins
from faos_core.clock import Clock
from faos_core.store import Store


class Pins(Protocol):
    """Accepted definitions by source ("program/clock") and tool, as SHA-256 in hex."""

    async def of(self, source: str) -> dict[str, str]:
        """tool → digest."""

    async def put(self, source: str, digests: Mapping[str, str]) -> None:
        """Durable when it returns; in the place of what was pinned."""


class StoredPins:
    """Pins in the node's store. Raises as Store.read and Store.write."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of(self, source: str) -> dict[str, str]:
        found = await self._store.read(lambda connection: connection.execute(SELECT_PINS, {"s": source}).all())
        return {row.tool: row.sha256 for row in found}

    async def put(self, source: str, digests: Mapping[str, str]) -> None:
        at_us = int(self._clock.now().timestamp() * 1_000_000)
        rows = [
            {"source": source, "tool": tool, "sha256": sha256, "pinned_at_us": at_us}
            for tool, sha256 in digests.items()
        ]

        def write(connection: sa.Connection) -> None:
            for row in rows:
                connection.execute(DELETE_PIN, {"s": source, "t": row["tool"]})
            if rows:
                connection.execute(tool_pins.insert(), rows)

        await self._store.write(write)


class VolatilePins:
    """Pins for as long as the process lives, where there is no store."""

    def __init__(self) -> None:
        self._pins: dict[str, dict[str, str]] = {}

    async def of(self, source: str) -> dict[str, str]:
        return dict(self._pins.get(source, {}))

    async def put(self, source: str, digests: Mapping[str, str]) -> None:
        self._pins.setdefault(source, {}).update(digests)


SOURCE: sa.BindParameter[str] = sa.bindparam("s")
SELECT_PINS = sa.select(tool_pins).where(tool_pins.c.source == SOURCE)
DELETE_PIN = tool_pins.delete().where(tool_pins.c.source == SOURCE, tool_pins.c.tool == sa.bindparam("t"))
