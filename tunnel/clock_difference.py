"""How far this machine's clock is from the control plane's, as far as what comes from there tells."""

import logging
from contextlib import suppress
from datetime import UTC, datetime

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.errors import ErrorCode
from tunnel.errors import CLOCK_DIFFERS

log = logging.getLogger(__name__)

TOLERATED_S = 300.0  # beyond the skew of machines that nobody synchronises, within that of certificates


class ClockDifference:
    """Belongs to one event loop. Seconds by which this clock is ahead; 0 until the control plane has said its time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def heard(self, frame: tunnel.CloudFrame, now: datetime) -> None:
        """Take the time from a Welcome or a heartbeat. now: aware, when it came."""
        kind = frame.WhichOneof("frame")
        at = frame.welcome.now if kind == "welcome" else frame.heartbeat.sent_at
        if kind not in ("welcome", "heartbeat") or not at.seconds:
            return
        was_off = self.alarms()
        with suppress(ValueError, OverflowError):  # no time that there can be: whoever answers chooses the number
            self.ahead_s = (now - at.ToDatetime(UTC)).total_seconds()
        if self.alarms() and not was_off:
            log.error("clock.differs", extra={names.DURATION_MS: round(self.ahead_s * 1000)})

    def alarms(self) -> tuple[ErrorCode, ...]:
        """What somebody should look at."""
        return (CLOCK_DIFFERS,) if abs(self.ahead_s) > TOLERATED_S else ()
