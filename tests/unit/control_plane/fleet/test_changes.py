"""What other control planes did, as this one hears of it."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from control_plane.app import control_plane
from control_plane.audit.service import record
from control_plane.db.schema import migrate_schema
from control_plane.fleet.changes import ChangeFeed
from control_plane.settings import ControlPlaneSettings
from faos_core.clock import SystemClock
from faos_core.errors import FaosError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store
from tests.patience import PATIENCE_S

STOLEN = NodeIdentity(TenantName("acme"), SiteName("main"), NodeName("node-1"))


class Streams:
    """One stream, of a node that is no more in the database."""

    def __init__(self) -> None:
        self.was_cut = asyncio.Event()

    def identities(self) -> frozenset[NodeIdentity]:
        return frozenset({STOLEN})

    async def cut(self, identity: NodeIdentity, error: FaosError) -> None:
        self.was_cut.set()


def evict(connection: sa.Connection) -> None:
    record(connection, actor="ada", action="EvictNode", tenant="acme", target=STOLEN.node)


async def test_revoked_node_is_cut_though_telling_a_tenant_hangs(tmp_path: Path) -> None:
    """A stolen machine is cut within a second; a tenant whose nodes are slow to be told must not give it ten more."""
    url = f"sqlite:///{tmp_path / 'cp.db'}"
    await asyncio.to_thread(migrate_schema, url)
    streams = Streams()

    async def never(tenant: str) -> None:
        await asyncio.Event().wait()

    async with Store(url) as store:
        feed = ChangeFeed(store, streams, SystemClock(), tenant_changed=never)
        running = asyncio.ensure_future(feed.run())
        try:
            await feed.ready.wait()
            await store.write(evict)
            async with asyncio.timeout(PATIENCE_S):
                await streams.was_cut.wait()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def test_others_are_heard_before_the_first_node_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A revision of another process between a node's greeting and the first look would reach that node a day later."""
    settings = ControlPlaneSettings(
        data_dir=tmp_path, tunnel_listen="127.0.0.1:0", admin_listen="127.0.0.1:0", public_addresses=("127.0.0.1:1",)
    )
    with caplog.at_level(logging.INFO, logger="faos_core.lifecycle"):
        async with control_plane(settings):
            pass

    order = [vars(each)["service"] for each in caplog.records if each.getMessage() == "service.ready"]
    assert order.index("changes") < order.index("tunnel")
