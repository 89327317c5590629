"""The node's own words on the tunnel, counted."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from data_plane.link.session import NodeSession
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import Clock
from faos_core.errors import REGISTRY, FaosError
from faos_core.meters import OTHER, Counter, Gauge, Instrument
from faos_core.names import Attribute, Metric


class ObservedSession(NodeSession):
    """As NodeSession. `failure` says why the latest session ended, where that is known."""

    def __init__(self, *, clock: Clock, sent_bytes: Callable[[], int], **more: Any) -> None:
        """sent_bytes: through the tunnel, since the start."""
        super().__init__(clock=clock, **more)
        self._wall = clock
        self.connected_at: datetime | None = None
        self.failure: Callable[[], FaosError | None] = lambda: None
        self._sessions = Counter(Metric.LINK_SESSIONS, "Sessions that opened; all but the first are reconnects.")
        self._ends = Counter(Metric.LINK_ENDS, "Sessions that ended, by why.", labels=(Attribute.ERROR_TYPE,))
        self._offers = Counter(Metric.LINK_OFFERS, "Configurations that were offered.")
        self._statuses = Counter(Metric.LINK_STATUSES, "What was reported of them.", labels=(Attribute.STATE_NAME,))
        self._connected = Gauge(Metric.LINK_CONNECTED, "1 while a session is open.", lambda: int(self.is_connected))
        self._sent = Gauge(Metric.LINK_SENT, "Bytes of messages sent.", sent_bytes, unit="By", is_sum=True)

    def instruments(self) -> Sequence[Instrument]:
        return self._sessions, self._ends, self._offers, self._statuses, self._connected, self._sent

    async def offered(self, offer: tunnel.ConfigOffer) -> None:
        self._offers.add()
        await super().offered(offer)

    async def next_status(self) -> tunnel.ApplyStatus:
        status = await super().next_status()
        self._statuses.add(1, tunnel.ApplyState.Name(status.state))
        return status

    def connected(self, is_connected: bool) -> None:
        was, now = self.is_connected, is_connected
        super().connected(is_connected)
        if now and not was:
            self.connected_at = self._wall.now()
            self._sessions.add()
        elif was and not now:
            self.connected_at = None
            self._ends.add(1, self._reason())

    def _reason(self) -> str:
        """A code of our registry; what a peer may have made up is none."""
        error = self.failure()
        return error.code.code if error is not None and error.code.code in REGISTRY else OTHER
