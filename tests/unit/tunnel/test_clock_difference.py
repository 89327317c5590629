"""Clocks that differ are told while there is a session, and no longer than they do."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.timestamps import timestamp
from tunnel.clock_difference import ClockDifference

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def beat(at: datetime) -> tunnel.CloudFrame:
    return tunnel.CloudFrame(heartbeat=tunnel.CloudHeartbeat(sent_at=timestamp(at)))


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=-1), timedelta(minutes=6)])
def test_a_clock_that_is_off_is_an_alarm_until_it_is_right(ahead: timedelta, caplog: pytest.LogCaptureFixture) -> None:
    """Certificates fail in ways that nobody understands; the cause is said before they do, once."""
    difference = ClockDifference()

    difference.heard(tunnel.CloudFrame(welcome=tunnel.Welcome(now=timestamp(NOW))), NOW + ahead)
    difference.heard(beat(NOW), NOW + ahead)

    assert difference.ahead_s == ahead.total_seconds()
    assert [code.code for code in difference.alarms()] == ["clock.differs"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == ["clock.differs"]
    difference.heard(beat(NOW), NOW + timedelta(seconds=2))
    assert difference.alarms() == ()


def test_a_frame_without_a_time_tells_nothing() -> None:
    """An older control plane, and every other frame."""
    difference = ClockDifference()

    difference.heard(tunnel.CloudFrame(welcome=tunnel.Welcome()), NOW)
    difference.heard(tunnel.CloudFrame(config_offer=tunnel.ConfigOffer()), NOW)

    assert difference.ahead_s == 0.0
