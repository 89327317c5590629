"""What the control plane keeps of the pushes that it made."""

import asyncio
from pathlib import Path

import pytest

from control_plane.db.schema import migrate_schema
from control_plane.fleet.interfaces import OfferMaterial
from control_plane.telemetry import fleet as observed
from faos.resource.v1.resource_pb2 import Manifest
from faos.tunnel.v1.tunnel_pb2 import TufMetadata
from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store

MATERIAL = OfferMaterial(1, b"m", b"d" * 32, Manifest(), TufMetadata(), {}, "")


class Desired:
    """One revision, of whoever asks."""

    async def offer_material(self, tenant: str) -> OfferMaterial:
        return MATERIAL


async def test_pushes_to_nodes_that_come_and_go_are_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is evicted joins again by another name; a control plane runs for months."""
    monkeypatch.setattr(observed, "MOST_PUSHES", 3)
    url = f"sqlite:///{tmp_path / 'cp.db'}"
    await asyncio.to_thread(migrate_schema, url)
    nodes = [NodeIdentity(TenantName("acme"), SiteName("main"), NodeName(f"node-{n}")) for n in range(5)]
    async with Store(url) as store:
        fleet = observed.ObservedFleet(store, Desired(), SystemClock())
        for node in (*nodes[:3], nodes[0], *nodes[3:]):
            target = await fleet.target(node)
            assert target is not None
            await fleet.offer(node, target, frozenset())

    assert list(fleet.pushes) == [nodes[0], nodes[3], nodes[4]]
