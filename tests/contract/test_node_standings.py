"""What operators do to nodes while these speak: on each engine, beside what another process writes."""

import asyncio
import threading
from pathlib import Path

import sqlalchemy as sa

from control_plane.audit.service import record
from control_plane.db.models import node_events, nodes
from control_plane.db.schema import migrate_schema
from control_plane.fleet.events import EventLog
from control_plane.identity.authority import Authority
from control_plane.identity.standing import NodeStandings
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.store import Store
from tests.contract.test_fleet_reports import NODES, fill
from tests.patience import PATIENCE_S

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
SPEAKER = NODES[0]


class SlowStore(Store):
    """Its transactions stay open, with all that they wrote, until `go_on` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.has_written, self.go_on = threading.Event(), threading.Event()

    async def write(self, fn, *, serial=True):  # type: ignore[no-untyped-def]  # as Store's
        def slow(connection: sa.Connection) -> object:
            answer = fn(connection)
            self.has_written.set()
            self.go_on.wait(PATIENCE_S)
            return answer

        return await super().write(slow, serial=serial)


async def until_somebody_waits(store: Store, url: str) -> None:
    """For a lock; a file's writers wait for each other in a way of their own."""
    if url.startswith("sqlite"):
        return
    async with asyncio.timeout(PATIENCE_S):
        while not await store.read(lambda connection: connection.exec_driver_sql(WAITING).scalar_one()):
            await asyncio.sleep(0.01)


async def test_node_that_is_speaking_can_be_evicted(database_url: str, tmp_path: Path) -> None:
    """An event that another process writes at this moment must not make the eviction of a stolen machine fail."""
    await asyncio.to_thread(migrate_schema, database_url)
    clock = SystemClock()
    other = SlowStore(database_url)
    async with Store(database_url) as store, other:
        await store.write(fill)
        event = tunnel.Event(epoch=1, sequence=1, alarm_changed=tunnel.AlarmChanged(code="a.b"))
        speaking = asyncio.ensure_future(EventLog(other, clock).record(SPEAKER, [event]))
        await asyncio.to_thread(other.has_written.wait, 20)
        standings = NodeStandings(store, Authority.open(tmp_path / "ca", clock), record)
        evicting = asyncio.ensure_future(standings.evict("acme", SPEAKER.node, actor="ada"))
        await until_somebody_waits(store, database_url)
        other.go_on.set()

        await asyncio.gather(speaking, evicting)

        left = sa.select(sa.func.count()).select_from(nodes).where(nodes.c.name == SPEAKER.node)
        events = sa.select(sa.func.count()).select_from(node_events)
        counts = await store.read(lambda connection: [connection.execute(each).scalar_one() for each in (left, events)])
    assert counts == [0, 0]
