"""Two control planes over one database: what an operator does at one reaches the nodes of the other within a second."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from faos.admin.v1 import admin_pb2 as admin
from tests.servers.databases import Databases
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.sites import Site
from tests.system.small_site import allow_all

pytestmark = pytest.mark.needs("embedder", "bwrap")

WITHIN_S = 1.0
POLLED_WITHIN_S = 2.5  # a file tells nobody
HEARTBEAT_S = 60.0  # so that no heartbeat is what finds out
LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


@asynccontextmanager
async def beside(site: Site) -> AsyncIterator[RunningControlPlane]:
    """Another control plane over the same database and keys."""
    settings = {"database_url": site.database, "heartbeat_s": HEARTBEAT_S}
    async with running_control_plane(site.plane.data_dir, **settings) as other:
        yield other


async def took_s(is_so: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)
    return time.monotonic() - began_s


def limit_s(databases: Databases) -> float:
    return WITHIN_S if databases.cloud else POLLED_WITHIN_S


async def test_apply_at_one_replica_is_offered_by_the_other(tmp_path: Path, databases: Databases) -> None:
    """The operator's balancer and the node's choose different replicas; nobody has to know."""
    async with Site(tmp_path, databases=databases, heartbeat_s=HEARTBEAT_S) as site, beside(site) as other:
        facts = site.node.running.applier.facts

        for revision in (1, 2, 3):
            await other.apply(allow_all(f"policy-{revision}"))
            assert await took_s(lambda now=revision: facts().attempted_revision == now) < limit_s(databases)
            await site.settled(revision=revision)
        await site.apply(allow_all("more"))
        await site.converged()
        assert [each.liveness for each in await other.all_nodes()] == [admin.LIVENESS_LIVE]
        await site.node.stop()
        async with asyncio.timeout(20):
            while (await other.node(site.node.name)).liveness == admin.LIVENESS_LIVE:
                await asyncio.sleep(0.05)


async def test_revocation_at_one_replica_cuts_the_stream_at_the_other(tmp_path: Path, databases: Databases) -> None:
    """A stolen machine is not connected for as long as its balancer pleases."""
    async with Site(tmp_path, nodes=2, databases=databases, heartbeat_s=HEARTBEAT_S) as site, beside(site) as other:
        first, second = site.nodes
        await site.apply(allow_all())
        await site.converged()

        request = admin.RevokeNodeRequest(tenant=TENANT, name=first.name, reason="stolen")
        await other.nodes.RevokeNode(request, metadata=other.metadata)
        assert await took_s(lambda: not first.running.session.is_connected) < limit_s(databases)
        await other.nodes.EvictNode(admin.EvictNodeRequest(tenant=TENANT, name=second.name), metadata=other.metadata)
        assert await took_s(lambda: not second.running.session.is_connected) < limit_s(databases)


async def listeners(site: Site, what: str = "count(*)") -> int:
    engine = sa.create_engine(site.database)
    try:
        with engine.begin() as connection:
            return int(connection.execute(sa.text(f"SELECT {what} {LISTENERS}")).scalar_one())
    finally:
        engine.dispose()


async def until_both_listen(site: Site) -> None:
    async with asyncio.timeout(20):
        while await listeners(site) < 2:
            await asyncio.sleep(0.05)


@pytest.mark.needs("postgres")
async def test_lost_listener_loses_nothing_and_comes_back(tmp_path: Path, postgres_url: str) -> None:
    """A connection that a firewall cut must not leave a replica deaf: it looks, and listens again."""
    databases = Databases(postgres_url)
    async with Site(tmp_path, databases=databases, heartbeat_s=HEARTBEAT_S) as site, beside(site) as other:
        facts = site.node.running.applier.facts
        await until_both_listen(site)
        assert await listeners(site, "count(pg_terminate_backend(pid))") == 2

        await other.apply(allow_all())
        assert await took_s(lambda: facts().attempted_revision == 1) < POLLED_WITHIN_S
        await until_both_listen(site)
        await other.apply(allow_all("more"))
        assert await took_s(lambda: facts().attempted_revision == 2) < WITHIN_S
