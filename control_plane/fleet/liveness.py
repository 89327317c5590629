"""Which nodes are connected, to whichever control plane over the database."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from faos_core.clock import Clock
from faos_core.ids import NodeIdentity
from tunnel.session import MISSED_HEARTBEATS


@dataclass(frozen=True, slots=True)
class Liveness:
    """Of our own sessions we know; of another process's, what it last wrote, for as long as it would wait itself."""

    is_ours: Callable[[NodeIdentity], bool]
    replica: str  # this process
    clock: Clock
    heartbeat_s: float

    def is_live(self, identity: NodeIdentity, *, connected_to: str, last_seen_at: datetime | None) -> bool:
        """Implements api.interfaces.Sessions. A process that died is believed until heartbeats are missed."""
        if self.is_ours(identity):
            return True
        if connected_to in ("", self.replica) or last_seen_at is None:
            return False
        return self.clock.now() - last_seen_at < timedelta(seconds=MISSED_HEARTBEATS * self.heartbeat_s)
