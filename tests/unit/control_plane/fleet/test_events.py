"""What nodes say happened, written once each, by any number of control planes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from control_plane.api.node_queries import NodeQueries
from control_plane.db.models import nodes, sites, tenants
from control_plane.db.schema import migrate_schema
from control_plane.fleet.events import TRIM_EVERY, EventLog, clean
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import InvalidError, NotFoundError, UnauthenticatedError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store
from tunnel.events import BEGIN, Key

NOW = datetime(2026, 5, 4, tzinfo=UTC)
NODE = NodeIdentity(TenantName("acme"), SiteName("main"), NodeName("n1"))
OTHER = NodeIdentity(TenantName("mercy"), SiteName("main"), NodeName("n1"))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    migrate_schema(database_url)
    async with Store(database_url) as store:
        for identity in (NODE, OTHER):
            await insert(store, identity)
        yield store


async def insert(store: Store, identity: NodeIdentity) -> None:
    def write(connection: sa.Connection) -> None:
        tenant = identity.tenant
        connection.execute(tenants.insert().values(name=tenant, created_at=NOW, tuf_root=b""))
        connection.execute(sites.insert().values(tenant=tenant, name=identity.site, labels={}, created_at=NOW))
        row = {"spiffe_id": identity.spiffe_id, "labels": {}, "enrolled_at": NOW, "public_key_sha256": b""}
        row |= {"tenant": tenant, "site": identity.site, "name": identity.node}
        connection.execute(nodes.insert().values(row | {"certificate_serial": "1", "certificate_expires_at": NOW}))

    await store.write(write)


def runs(first: int, last: int, *, epoch: int = 1) -> list[tunnel.Event]:
    ended = (tunnel.RunEnded(run_id=f"run-{number}", agent="helper") for number in range(first, last + 1))
    return [
        tunnel.Event(epoch=epoch, sequence=number, run_ended=each) for number, each in enumerate(ended, start=first)
    ]


async def listed(store: Store, *, tenant: str = "acme", node: str = "n1", size: int = 1000) -> Sequence[tunnel.Event]:
    found, _ = await NodeQueries(store).events(tenant, node, page_size=size, page_token="")
    return [tunnel.Event.FromString(each.body) for each in found]


async def test_a_batch_is_there_once_when_it_comes_twice(store: Store) -> None:
    """Acknowledged is durable, and twice sent is once written."""
    log = EventLog(store, SystemClock())
    assert await log.durable(NODE) == BEGIN

    assert await log.record(NODE, runs(1, 3)) == Key(1, 3)
    assert await log.record(NODE, runs(2, 5)) == Key(1, 5)
    assert await log.record(NODE, runs(1, 2)) == Key(1, 5)

    assert await log.durable(NODE) == Key(1, 5)
    assert [each.sequence for each in await listed(store)] == [5, 4, 3, 2, 1]
    node, _ = await NodeQueries(store).get("acme", "n1")
    assert (node.event_count, node.lost_event_count) == (5, 0)


async def test_control_planes_that_hear_the_same_at_once_write_it_once(store: Store, database_url: str) -> None:
    """A node's old connection may end at one control plane while its new one is at another."""
    async with Store(database_url) as second:
        logs = [EventLog(store, SystemClock()), EventLog(second, SystemClock())]
        async with asyncio.TaskGroup() as group:
            for last in range(1, 11):
                for log in logs:
                    group.create_task(log.record(NODE, runs(1, last)))

    assert [each.sequence for each in await listed(store)] == list(range(10, 0, -1))


async def test_nodes_of_one_name_are_apart(store: Store) -> None:
    """No read and no ack across tenants."""
    log = EventLog(store, SystemClock())
    await log.record(NODE, runs(1, 3))

    assert await log.durable(OTHER) == BEGIN
    assert await listed(store, tenant="mercy") == []
    assert len(await listed(store, tenant="", node="")) == 3


async def test_what_never_came_is_told_and_counted(store: Store) -> None:
    """An operator sees a hole instead of nothing."""
    log = EventLog(store, SystemClock())
    await log.record(NODE, runs(1, 1))
    await log.record(NODE, runs(5, 5))

    events = await listed(store)
    node, _ = await NodeQueries(store).get("acme", "n1")
    assert [(each.sequence, each.events_dropped.count) for each in events] == [(5, 0), (4, 3), (1, 0)]
    assert node.lost_event_count == 3


async def test_only_the_newest_of_a_node_are_kept(store: Store) -> None:
    """A table that grows for ever is an outage with a date; what was said of acks does not fall with the rows."""
    log = EventLog(store, SystemClock(), kept_per_node=10)
    await log.record(OTHER, runs(1, 5))
    for first in range(1, 3 * TRIM_EVERY, 100):
        await log.record(NODE, runs(first, first + 99))

    left = [each.sequence for each in await listed(store)]

    assert 10 <= len(left) <= 10 + TRIM_EVERY
    assert left[:10] == list(range(800, 790, -1))
    assert await log.record(NODE, runs(1, 50)) == Key(1, 800)
    assert len(await listed(store, tenant="mercy")) == 5
    assert (await NodeQueries(store).get("acme", "n1"))[0].event_count == 800


@pytest.mark.parametrize("standing", [admin.NODE_STANDING_REVOKED, None])
async def test_a_node_that_is_not_admitted_any_more_writes_nothing(store: Store, standing: int | None) -> None:
    """After revocation no frame is accepted, whatever stream it comes on."""
    log = EventLog(store, SystemClock())
    mine = sa.and_(nodes.c.tenant == "acme", nodes.c.name == "n1")
    change = sa.update(nodes).where(mine).values(standing=standing) if standing else sa.delete(nodes).where(mine)
    await store.write(lambda connection: connection.execute(change).rowcount)

    with pytest.raises(UnauthenticatedError):
        await log.record(NODE, runs(1, 1))


async def test_lists_come_in_pages_newest_first(store: Store) -> None:
    """Over one node by its numbers, over all by the time of arrival."""
    log, queries = EventLog(store, SystemClock()), NodeQueries(store)
    for first in (1, 4, 7):
        await log.record(NODE, runs(first, first + 2))
    await log.record(NODE, runs(1, 2, epoch=2))

    for node in ("n1", ""):
        seen, token = [], ""
        while True:
            page, token = await queries.events("acme", node, page_size=4, page_token=token)
            seen += [tunnel.Event.FromString(each.body) for each in page]
            if not token:
                break
        assert [(each.epoch, each.sequence) for each in seen] == [
            (2, 2),
            (2, 1),
            *((1, number) for number in range(9, 0, -1)),
        ]


async def test_what_nobody_knows_is_not_found(store: Store) -> None:
    """A typing error must not look like a quiet node."""
    queries = NodeQueries(store)

    with pytest.raises(NotFoundError):
        await queries.events("acme", "nobody", page_size=0, page_token="")
    with pytest.raises(NotFoundError):
        await queries.events("nobody", "", page_size=0, page_token="")
    with pytest.raises(InvalidError):
        await queries.events("acme", "n1", page_size=0, page_token="of another list")


def test_what_a_node_that_is_not_ours_may_say_is_kept_harmless() -> None:
    """Its words end on an operator's terminal."""
    hostile = tunnel.Event(run_ended=tunnel.RunEnded(run_id="\x1b[2J", agent="x" * 5000, turns=3))
    alarm = tunnel.Event(alarm_changed=tunnel.AlarmChanged(code="rm -rf; \n", is_raised=True))
    newer = tunnel.Event.FromString(tunnel.Event(epoch=1, sequence=2).SerializeToString() + b"\xfa\x01\x03abc")

    assert clean(hostile).run_ended == tunnel.RunEnded(turns=3)
    assert clean(alarm).alarm_changed == tunnel.AlarmChanged(is_raised=True)
    assert clean(newer) == tunnel.Event(epoch=1, sequence=2), "of a kind that is not known here: when, and no more"
    assert clean(runs(1, 1)[0]) == runs(1, 1)[0]
