"""The durable, bounded spool of events on their way to the control plane. Implements tunnel.event_push.Events.

Overflow: when there are too many, or too large, the oldest are dropped, an eighth at once, and one EventsDropped takes
their place under the key of the last of them; another in place of an event that the disk damaged. Nobody who makes an
event ever waits for the control plane.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from data_plane.events.limits import SpoolLimits
from data_plane.events.models import event_spool, raised_alarms, spooled_events
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.store import Store
from faos_core.store_statement import HotStatement
from faos_core.timestamps import timestamp
from tunnel.events import Key

log = logging.getLogger(__name__)

STATE = event_spool.c
EVENT = spooled_events.c
KEY = sa.tuple_(EVENT.epoch, EVENT.sequence)
NEXT = HotStatement(
    sa.update(event_spool)
    .values(
        sequence=STATE.sequence + 1,
        event_count=STATE.event_count + 1,
        size_bytes=STATE.size_bytes + sa.bindparam("body_bytes"),
    )
    .returning(STATE.epoch, STATE.sequence, STATE.event_count, STATE.size_bytes)
)
INSERT = HotStatement(sa.insert(spooled_events), columns=("epoch", "sequence", "body", "dropped_count"))
OLDEST_FIRST = (EVENT.epoch, EVENT.sequence)


class Allow(Protocol):
    """The gate's: what these say may leave from now on."""

    def __call__(self, *values: str | bytes) -> None: ...


class EventSpool:
    """Open one per process and store. `add` belongs inside a write of the store; the rest to its event loop."""

    def __init__(self, store: Store, clock: Clock, *, epoch: int, allow: Allow, limits: SpoolLimits) -> None:
        self.epoch = epoch
        self.changed = asyncio.Event()
        self._store = store
        self._clock = clock
        self._allow = allow
        self._limits = limits
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(
        cls, store: Store, clock: Clock, *, node: str, epoch: int, allow: Allow, limits: SpoolLimits | None = None
    ) -> "EventSpool":
        """node: its SPIFFE ID; what another node made on this machine is forgotten, because it may be another
        tenant's. epoch: of this start; a higher one is taken where the spool has seen it before. Raises as
        `Store.write`."""
        taken = await store.write(lambda connection: _begin(connection, node, epoch))
        return cls(store, clock, epoch=taken, allow=allow, limits=limits or SpoolLimits())

    def add(self, connection: sa.Connection, event: tunnel.Event) -> Key:
        """Spool the event, with a time and the next key, in the transaction of what it tells of: durable when that is.

        Every text in it must be one that may leave the node: it is not looked at again.
        """
        if not event.HasField("at"):
            event.at.CopyFrom(timestamp(self._clock.now()))
        body = event.SerializeToString()
        [(epoch, sequence, count, size_bytes)] = NEXT.rows(connection, {"body_bytes": len(body)})
        INSERT.run(connection, {"epoch": epoch, "sequence": sequence, "body": body, "dropped_count": 0})
        if count > self._limits.events or size_bytes > self._limits.size_bytes:
            self._drop_oldest(connection, count, size_bytes)
        if not self.changed.is_set():  # who clears it looks afterwards, and then this is committed
            self._loop.call_soon_threadsafe(self.changed.set)
        return Key(epoch, sequence)

    async def record(self, event: tunnel.Event) -> Key:
        """Durable when it returns. Raises as `Store.write`."""
        return await self._store.write(lambda connection: self.add(connection, event))

    async def record_alarms(self, codes: frozenset[str]) -> None:
        """These are all that is raised now: spool an AlarmChanged for each that was not, or is not any more."""

        def write(connection: sa.Connection) -> None:
            before = frozenset(connection.execute(sa.select(raised_alarms.c.code)).scalars())
            for code in sorted(codes - before):
                connection.execute(sa.insert(raised_alarms), {"code": code})
                self.add(connection, tunnel.Event(alarm_changed=tunnel.AlarmChanged(code=code, is_raised=True)))
            for code in sorted(before - codes):
                connection.execute(sa.delete(raised_alarms).where(raised_alarms.c.code == code))
                self.add(connection, tunnel.Event(alarm_changed=tunnel.AlarmChanged(code=code)))

        await self._store.write(write)

    async def waiting(self) -> int:
        """How many events have not arrived at the control plane, as far as it said."""
        return await self._store.read(lambda connection: connection.execute(sa.select(STATE.event_count)).scalar_one())

    # ---- what the tunnel asks

    async def after(self, key: Key, most: int) -> Sequence[tunnel.Event]:
        """The oldest events after this key; their identifiers pass the gate from now on.

        It is asked of the writer: what was added before `changed` was set is committed by then.
        """
        query = sa.select(spooled_events).where(sa.tuple_(*key) < KEY).order_by(*OLDEST_FIRST).limit(most)
        rows = await self._store.write(lambda connection: connection.execute(query).all(), serial=False)
        events = [self._event(row) for row in rows]
        for event in events:
            self._allow(*_identifiers(event))
        return events

    async def forget(self, through: Key) -> None:
        def write(connection: sa.Connection) -> None:
            gone = sa.tuple_(*through) >= KEY
            sizes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(EVENT.body)), 0))
            count, size_bytes = connection.execute(sizes.where(gone)).one()
            if count:
                connection.execute(sa.delete(spooled_events).where(gone))
                _shrink(connection, count, size_bytes)

        await self._store.write(write)

    async def renumber(self, epoch: int) -> None:
        before = self.epoch

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.update(spooled_events).where(EVENT.epoch == before).values(epoch=epoch))
            connection.execute(sa.update(event_spool).values(epoch=epoch))

        await self._store.write(write)
        self.epoch = epoch

    def _event(self, row: "sa.Row[Any]") -> tunnel.Event:
        """One that the disk damaged is told of as dropped: it must not keep back those after it."""
        dropped_count = row.dropped_count
        try:
            event = tunnel.Event.FromString(row.body)
        except DecodeError:
            log.error("events.damaged", extra={names.SIZE: len(row.body)})
            event = tunnel.Event(at=timestamp(self._clock.now()))
            dropped_count = dropped_count or 1
        event.epoch, event.sequence = row.epoch, row.sequence
        if dropped_count:
            event.events_dropped.count = dropped_count
        return event

    def _drop_oldest(self, connection: sa.Connection, count: int, size_bytes: int) -> None:
        """Down to seven eighths; what was added last always stays."""
        most_count, most_bytes = self._limits.events * 7 // 8, self._limits.size_bytes * 7 // 8
        columns = (*OLDEST_FIRST, EVENT.dropped_count, sa.func.length(EVENT.body).label("body_bytes"))
        oldest = sa.select(*columns).order_by(*OLDEST_FIRST).limit(min(count - 1, count // 4 + 1))
        last, dropped, left_count, left_bytes = None, 0, count, size_bytes
        for row in connection.execute(oldest).all():
            if left_count <= most_count and left_bytes <= most_bytes:
                break
            last, left_count, left_bytes = row, left_count - 1, left_bytes - row.body_bytes
            dropped += row.dropped_count or 1
        if last is not None:
            marker = tunnel.Event(at=timestamp(self._clock.now())).SerializeToString()
            _replace(connection, last, dropped, marker)
            _shrink(connection, count - left_count - 1, size_bytes - left_bytes - len(marker))
            log.warning("events.dropped", extra={names.SIZE: dropped})


def _begin(connection: sa.Connection, node: str, epoch: int) -> int:
    row = connection.execute(sa.select(event_spool)).first()
    if row is None:
        values = {"id": 1, "node": node, "epoch": epoch, "sequence": 0, "event_count": 0, "size_bytes": 0}
        connection.execute(sa.insert(event_spool), values)
        return epoch
    taken = max(epoch, int(row.epoch) + 1)
    connection.execute(sa.update(event_spool).values(node=node, epoch=taken, sequence=0))
    if row.node != node:
        log.warning("events.of_former_node", extra={names.SIZE: row.event_count})
        connection.execute(sa.delete(spooled_events))
        connection.execute(sa.delete(raised_alarms))
        connection.execute(sa.update(event_spool).values(event_count=0, size_bytes=0))
    return taken


def _replace(connection: sa.Connection, last: Any, dropped: int, marker: bytes) -> None:
    """Everything up to this row by one that stands for it."""
    connection.execute(sa.delete(spooled_events).where(sa.tuple_(last.epoch, last.sequence) >= KEY))
    key = {"epoch": last.epoch, "sequence": last.sequence}
    INSERT.run(connection, {**key, "body": marker, "dropped_count": dropped})


def _shrink(connection: sa.Connection, count: int, size_bytes: int) -> None:
    values = {"event_count": STATE.event_count - count, "size_bytes": STATE.size_bytes - size_bytes}
    connection.execute(sa.update(event_spool).values(values))


def _identifiers(event: tunnel.Event) -> Sequence[str]:
    return [text for text in (event.run_ended.run_id, event.run_ended.agent, event.alarm_changed.code) if text]
