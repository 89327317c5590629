"""What is kept for a time only, removed in small steps beside other work: nobody waits for it, and it waits for nobody.

Events have a bound of their own, where they are written (fleet/events.py). The audit log, and what was signed, is
kept, but for timestamps: of them the newest alone says anything, and one is signed every day.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from control_plane.db.models import join_tokens, node_config_status, requests, revisions, tenants, tuf_metadata
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import FaosError
from faos_core.store import Store

log = logging.getLogger(__name__)

LOOK_S = 600.0  # between two looks
ROWS_AT_ONCE = 500  # in one transaction; engines bound the parameters of one statement too
TIMESTAMPS_KEPT = 10  # of a tenant, for whoever looks into what was signed last
TOKENS_KEPT = timedelta(days=30)  # after a join token's end, used or not; the audit log says longer who used it
PAUSE_S = 0.05  # between two steps, in which others write


class Retention:
    """A supervised service. Any number of control planes over one database may do it at once.

    A database that is away is asked again at the next look.
    """

    name = "retention"

    def __init__(self, store: Store, clock: Clock, *, statuses_kept_per_node: int, answers_kept_s: float) -> None:
        """statuses_kept_per_node: what became of so many revisions is kept, the newest; of other numbers than the
        tenant has revisions, which only a node that is not ours any more reports, nothing.
        answers_kept_s: seconds, at least, for which a request id gets its answer again.
        """
        self.ready = asyncio.Event()
        self._store = store
        self._clock = clock
        self._kept_count = statuses_kept_per_node
        self._kept_for = timedelta(seconds=answers_kept_s)

    async def run(self) -> None:
        self.ready.set()
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.purge()
            except FaosError as error:
                log.warning("retention.not_purged", extra={names.CODE: error.code.code})

    async def purge(self) -> None:
        """Remove all that is not kept any more. Raises FaosError: the rest is removed next time."""
        named = await self._store.read(lambda connection: connection.execute(sa.select(tenants.c.name)).scalars().all())
        for tenant in named:
            for table, is_old in self._rules(tenant):
                count = await self._remove(table, is_old)
                if count:
                    log.info("retention.purged", extra={names.TENANT: tenant, names.SIZE: count})

    def _rules(self, tenant: str) -> Sequence[tuple[sa.Table, sa.ColumnElement[bool]]]:
        """Of which table what is not kept."""
        standing = sa.select(sa.func.max(revisions.c.number)).where(revisions.c.tenant == tenant)
        newest = sa.func.coalesce(standing.scalar_subquery(), 0)
        number = node_config_status.c.revision
        is_uncounted = sa.or_(number <= newest - self._kept_count, number > newest)
        now = self._clock.now()
        newest_timestamp = sa.select(sa.func.max(tuf_metadata.c.version)).where(_are_timestamps(tenant))
        is_overtaken = tuf_metadata.c.version <= newest_timestamp.scalar_subquery() - TIMESTAMPS_KEPT
        return [
            (node_config_status, sa.and_(node_config_status.c.tenant == tenant, is_uncounted)),
            (requests, sa.and_(requests.c.tenant == tenant, requests.c.at < now - self._kept_for)),
            (join_tokens, sa.and_(join_tokens.c.tenant == tenant, join_tokens.c.expires_at < now - TOKENS_KEPT)),
            (tuf_metadata, sa.and_(_are_timestamps(tenant), is_overtaken)),
        ]

    async def _remove(self, table: sa.Table, is_old: sa.ColumnElement[bool]) -> int:
        """How many rows there were. Looks first: there is mostly nothing, and reading disturbs no writer."""
        some = sa.select(*table.primary_key).where(is_old).limit(ROWS_AT_ONCE)
        removed = 0
        while await self._store.read(lambda connection: connection.execute(some.limit(1)).first()):
            count = await self._store.write(lambda connection: _delete(connection, table, some), serial=False)
            if count == 0:
                break  # another control plane has them
            removed += count
            await self._clock.sleep(PAUSE_S)
        return removed


def _are_timestamps(tenant: str) -> sa.ColumnElement[bool]:
    return sa.and_(tuf_metadata.c.tenant == tenant, tuf_metadata.c.role == "timestamp")


def _delete(connection: sa.Connection, table: sa.Table, some: sa.Select[Any]) -> int:
    """Rows that nobody else holds: waiting for them, in another order than those who report, could be a deadlock."""
    keys = [tuple(row) for row in connection.execute(some.with_for_update(skip_locked=True))]
    if keys:
        connection.execute(sa.delete(table).where(sa.tuple_(*table.primary_key).in_(keys)))
    return len(keys)
