"""What the local API shows besides the link's own facts. Implements api's Sight."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from data_plane.activation import NodeActivation
from data_plane.agents.interfaces import RunCounts
from data_plane.agents.service import Runs
from data_plane.agents.sight import ActiveRun
from data_plane.agents.steps import RunState
from data_plane.api.interfaces import ServerHealth, Standing
from data_plane.ceiling.models import Limits
from data_plane.egress.ledger_meter import LedgerMeter, Total
from data_plane.events.spool import EventSpool
from data_plane.identity.certificates import NodeCertificates
from data_plane.identity.store import Membership
from data_plane.telemetry.link import ObservedSession
from data_plane.telemetry.processes import ProcessUse, family
from data_plane.tools.broker import ToolServers
from data_plane.tools.errors import DEFINITION_CHANGED, SERVER_RESTARTING
from faos_core.meters import Meters, as_prometheus


@dataclass(frozen=True, slots=True)
class Board:
    """For the event loop; nothing here waits but what is async."""

    started_at: datetime
    membership: Membership
    session: ObservedSession
    certificates: NodeCertificates
    activation: NodeActivation
    tools: ToolServers
    runs: Runs
    limits: Limits
    ledger: LedgerMeter
    spool: EventSpool
    meters: Meters

    def standing(self) -> Standing:
        return Standing(
            started_at=self.started_at,
            connected_since=self.session.connected_at,
            control_plane=self.membership.addresses[0],
            certificate_expires_at=self.certificates.expires_at(),
        )

    def tool_servers(self) -> Sequence[ServerHealth]:
        states = self.tools.states()
        found = []
        for name in sorted(self.activation.running().tool_servers):
            own = [state for state in states if state.server == name]
            usable = sum(bool(state.offered_sha256) and not state.is_quarantined for state in own)
            problem = "" if any(state.offered_sha256 for state in own) else SERVER_RESTARTING.code
            problem = DEFINITION_CHANGED.code if any(state.is_quarantined for state in own) else problem
            found.append(ServerHealth(name, usable, problem))
        return found

    def ledger_totals(self) -> Mapping[str, Total]:
        return self.ledger.totals()

    async def events_waiting(self) -> int:
        return await self.spool.waiting()

    async def ended_runs(self) -> Mapping[RunState, int]:
        return await self.runs.ended_by_state()

    def counts(self) -> RunCounts:
        return self.runs.counts()

    def most_runs(self) -> int:
        return self.limits.concurrent_runs

    def active_runs(self) -> Sequence[ActiveRun]:
        return sorted(self.runs.sight.active.values(), key=lambda run: run.started_at)

    def output_tokens(self) -> int:
        return int(self.runs.sight.tokens.values().get(("output",), 0))

    async def processes(self) -> Sequence[ProcessUse]:
        return await asyncio.to_thread(family)

    def metrics_text(self) -> str:
        return as_prometheus(self.meters.instruments)
