"""An offer that is in flight while the node changes its certificate: applied once, and told over whichever stream is
up."""

import asyncio
from pathlib import Path

import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.patience import PATIENCE_S
from tests.system.sites import Site
from tests.system.small_site import allow_all, tool_server

pytestmark = pytest.mark.needs("embedder", "bwrap")

LIFETIME_S = 5.0  # renewed at about half of it
SOAK_S = 15.0  # so that a switch falls into it, also on a machine that stands still for some seconds


async def test_offer_in_flight_over_a_certificate_switch_is_applied_once_and_told(tmp_path: Path) -> None:
    """Nonces die with their stream; what they were about must neither be begun again nor be forgotten."""
    async with Site(tmp_path, soak_s=SOAK_S, node_certificate_lifetime_s=LIFETIME_S) as site:
        activation = site.node.running.activation
        await site.apply(tool_server(), allow_all())
        await site.settled(states=(tunnel.APPLY_STATE_SOAKING,))
        configuration, serial = activation.running(), await serial_of(site)

        async with asyncio.timeout(PATIENCE_S):
            while await serial_of(site) == serial:
                assert site.node.running.applier.facts().healthy_revision == 0, "the switch came too late to matter"
                await asyncio.sleep(0.05)
        await site.converged()

        assert activation.running() is configuration, "it was activated once"


async def serial_of(site: Site) -> object:
    """Stands for the certificate that the control plane holds for the current one."""
    return (await site.facts()).certificate_expires_at.ToNanoseconds()
