"""What happened at nodes: written once each, acknowledged only then. Implements tunnel.interfaces.EventLog."""

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control_plane.db.models import node_events, nodes
from control_plane.identity.standing import is_node, require_standing
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import REGISTRY
from faos_core.ids import NAME_PATTERN, NodeIdentity
from faos_core.store import Store
from tunnel.events import BEGIN, Key, intake

log = logging.getLogger(__name__)

KEPT_PER_NODE = 10_000
TRIM_EVERY = 256  # events of a node, between two looks at how many are kept
ID_PATTERN = re.compile(r"[a-z0-9][-a-z0-9]{0,62}")
CODE_PATTERN = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventLog:
    """Safe for concurrent use by any number of streams, of any number of control planes over one database: each
    write updates its node's row first, which locks it, and decides then what is new."""

    def __init__(self, store: Store, clock: Clock, *, kept_per_node: int = KEPT_PER_NODE) -> None:
        """kept_per_node: so many of the newest events of each node are kept; up to TRIM_EVERY more for a while."""
        self._store = store
        self._clock = clock
        self._kept = kept_per_node

    async def durable(self, identity: NodeIdentity) -> Key:
        """(0, 0) for a node that sent none."""
        row = await self._store.read(lambda connection: connection.execute(_select(identity)).first())
        return _durable(row) if row else BEGIN

    async def record(self, identity: NodeIdentity, events: Sequence[tunnel.Event]) -> Key:
        """Write what is new; up to where all is durable when this returns. Raises UnauthenticatedError."""

        def write(connection: sa.Connection) -> tuple[Key, int]:
            row = _locked(connection, identity, self._clock.now())
            new = intake(_durable(row), events)
            if new.fresh:
                self._insert(connection, identity, row, new.fresh, new.durable, new.lost_count)
            return new.durable, new.lost_count

        durable, lost_count = await self._store.write(write, serial=False)
        if lost_count:
            log.warning("events.lost", extra={names.NODE: identity.node, names.SIZE: lost_count})
        return durable

    def _insert(
        self,
        connection: sa.Connection,
        identity: NodeIdentity,
        row: sa.Row[Any],
        fresh: Sequence[tunnel.Event],
        durable: Key,
        lost_count: int,
    ) -> None:
        received_at_us = (self._clock.now() - EPOCH) // MICROSECOND
        where = {"tenant": identity.tenant, "node": identity.node, "received_at_us": received_at_us}
        rows = [
            {**where, "epoch": each.epoch, "sequence": each.sequence, "body": clean(each).SerializeToString()}
            for each in fresh
        ]
        connection.execute(sa.insert(node_events), rows)
        count = row.event_count + len(fresh)
        values = {
            "event_epoch": durable.epoch,
            "event_sequence": durable.sequence,
            "event_count": count,
            "lost_event_count": min(row.lost_event_count + lost_count, 2**63 - 1),
        }
        connection.execute(sa.update(nodes).where(is_node(identity)).values(values))
        if count // TRIM_EVERY != row.event_count // TRIM_EVERY:
            _trim(connection, identity, self._kept)


def clean(event: tunnel.Event) -> tunnel.Event:
    """As it may be kept and shown: nothing that this version does not know, and names that look like names. A node's
    gate sends no others; this is for one that is not ours any more."""
    kept = tunnel.Event()
    kept.CopyFrom(event)
    kept.DiscardUnknownFields()
    match kept.WhichOneof("event"):
        case "run_ended":
            kept.run_ended.run_id = _matching(ID_PATTERN, kept.run_ended.run_id)
            kept.run_ended.agent = _matching(NAME_PATTERN, kept.run_ended.agent)
        case "alarm_changed":
            code = kept.alarm_changed.code
            kept.alarm_changed.code = code if code in REGISTRY else _matching(CODE_PATTERN, code[:63])
        case _:
            pass
    return kept


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def _select(identity: NodeIdentity) -> sa.Select[Any]:
    columns = nodes.c
    asked = (columns.event_epoch, columns.event_sequence, columns.event_count, columns.lost_event_count)
    return sa.select(*asked, columns.site, columns.standing).where(is_node(identity))


def _durable(row: sa.Row[Any]) -> Key:
    return Key(row.event_epoch, row.event_sequence)


def _locked(connection: sa.Connection, identity: NodeIdentity, now: datetime) -> sa.Row[Any]:
    """The node's row, which no other transaction changes before the end of this one. Every batch asks again whether
    the node is admitted. Raises UnauthenticatedError."""
    admitted = sa.and_(is_node(identity), nodes.c.standing == admin.NODE_STANDING_ADMITTED)
    connection.execute(sa.update(nodes).where(admitted).values(last_seen_at=now))
    row = connection.execute(_select(identity)).first()
    require_standing(row, identity)
    assert row is not None, "a node in good standing has a row"
    return row


def _trim(connection: sa.Connection, identity: NodeIdentity, kept: int) -> None:
    table = node_events.c
    mine = sa.and_(table.tenant == identity.tenant, table.node == identity.node)
    newest_first = (table.epoch.desc(), table.sequence.desc())
    oldest = sa.select(table.epoch, table.sequence).where(mine).order_by(*newest_first).offset(kept - 1).limit(1)
    found = connection.execute(oldest).first()
    if found is not None:
        before = sa.tuple_(table.epoch, table.sequence) < sa.tuple_(found.epoch, found.sequence)
        connection.execute(sa.delete(node_events).where(mine, before))
