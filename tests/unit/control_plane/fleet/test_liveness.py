"""Whether a node is connected, when several control planes hold sessions."""

from datetime import timedelta

import pytest

from control_plane.fleet.liveness import Liveness
from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName

NODE = NodeIdentity(TenantName("acme"), SiteName("main"), NodeName("n1"))
HEARTBEAT_S = 15.0


@pytest.mark.parametrize(
    ("ours", "connected_to", "silent_s", "is_live"),
    [
        (True, "us", 0.0, True),
        (True, "", 999.0, True),
        (False, "us", 0.0, False),
        (False, "", 0.0, False),
        (False, "them", 40.0, True),
        (False, "them", 46.0, False),
    ],
)
def test_other_processes_are_believed_as_long_as_they_would_wait_themselves(
    ours: bool, connected_to: str, silent_s: float, is_live: bool
) -> None:
    """Half a fleet must not look dead because a balancer sent its nodes elsewhere, nor alive because a process died."""
    clock = SystemClock()
    liveness = Liveness(lambda _: ours, "us", clock, HEARTBEAT_S)
    seen = clock.now() - timedelta(seconds=silent_s)

    assert liveness.is_live(NODE, connected_to=connected_to, last_seen_at=seen) is is_live
    assert liveness.is_live(NODE, connected_to=connected_to, last_seen_at=None) is ours
