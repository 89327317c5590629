"""What makes events: the end of a run, and alarms. Only ids that this node made, names of its configuration and codes
of the registry go into them."""

import asyncio
import logging
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from data_plane.agents.events import RunRecord
from data_plane.agents.interfaces import RunEffort
from data_plane.agents.steps import RunState
from data_plane.events.spool import EventSpool
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import REGISTRY, FaosError

log = logging.getLogger(__name__)

LOOK_S = 1.0
MOST = 2**32 - 1  # that a count of an event holds
OUTCOMES = {
    RunState.SUCCEEDED: tunnel.RUN_OUTCOME_SUCCEEDED,
    RunState.FAILED: tunnel.RUN_OUTCOME_FAILED,
    RunState.LIMITED: tunnel.RUN_OUTCOME_LIMITED,
    RunState.CANCELLED: tunnel.RUN_OUTCOME_CANCELLED,
}


class RunEndings:
    """Implements agents' RunEnded: an event for each run's end, in the transaction that ends it."""

    def __init__(self, spool: EventSpool) -> None:
        self._spool = spool

    def __call__(self, connection: sa.Connection, run: RunRecord, effort: RunEffort) -> None:
        self._spool.add(connection, tunnel.Event(run_ended=run_ended(run, effort)))


def run_ended(run: RunRecord, effort: RunEffort) -> tunnel.RunEnded:
    lasted_s = (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0
    return tunnel.RunEnded(
        run_id=run.run_id,
        agent=run.agent,
        revision=run.revision,
        outcome=OUTCOMES[run.ending.state],
        turns=effort.turns,
        tool_calls=effort.tool_calls,
        output_tokens=min(effort.output_tokens, MOST),  # a model server says them
        duration_ms=max(0, round(lasted_s * 1000)),  # a wall clock may have been set back meanwhile
    )


class AlarmWatch:
    """Spools each alarm's beginning and end. A supervised service."""

    name = "alarms"

    def __init__(self, spool: EventSpool, alarms: Callable[[], Iterable[str]], clock: Clock) -> None:
        """alarms: codes of what is raised now. Those of no registry of ours, which a peer may have made up, stay."""
        self.ready = asyncio.Event()
        self._spool = spool
        self._alarms = alarms
        self._clock = clock
        self._recorded: frozenset[str] | None = None  # None: as the database says

    async def run(self) -> None:
        self.ready.set()
        while True:
            await self.look()
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Once. A database that is away is asked again the next time."""
        raised = frozenset(code for code in self._alarms() if code in REGISTRY)
        if raised == self._recorded:
            return
        try:
            await self._spool.record_alarms(raised)
            self._recorded = raised
        except FaosError as error:
            log.warning("alarms.not_recorded", extra={names.CODE: error.code.code})
