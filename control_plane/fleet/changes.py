"""What other control planes over the same database did, for the nodes whose streams this one holds.

Every mutation leaves an audit record in its own transaction, so the audit log is the list of all that was done, by
whichever process, in the order of its commits: what is newer than what was seen last is looked at. On PostgreSQL each
record wakes every control plane (LISTEN/NOTIFY); a wake-up may be lost with its connection, a record cannot. Where
nobody is woken, and while the listener is away, it is looked at once a second.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa

from control_plane.db.models import audit_records, nodes
from control_plane.identity.standing import is_node, require_standing
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import FaosError, UnauthenticatedError
from faos_core.ids import NodeIdentity
from faos_core.store import Store

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks while nothing wakes us
LOOK_WHILE_HEARING_S = 15.0
HEAR_AGAIN_S = 1.0
RECORDS_AT_ONCE = 1000


class LiveNodes(Protocol):
    """The streams of this process."""

    def identities(self) -> frozenset[NodeIdentity]: ...

    async def cut(self, identity: NodeIdentity, error: FaosError) -> None:
        """End every stream of a node with this error."""


class ChangeFeed:
    """Tells this process of the others' applies and revocations. A supervised service, ready before the first node is
    served: what is done after that is seen, what was done before is found in the database.

    What this process does itself comes by here again, and is found to be done. A database that is away is asked again.
    """

    name = "changes"

    def __init__(
        self, store: Store, live: LiveNodes, clock: Clock, *, tenant_changed: Callable[[str], Awaitable[None]]
    ) -> None:
        """tenant_changed: awaited for each tenant of whom there is a record, also for what changed nothing."""
        self.ready = asyncio.Event()
        self._store = store
        self._live = live
        self._clock = clock
        self._tenant_changed = tenant_changed
        self._woken = asyncio.Event()
        self._hears = False
        self._seen = 0

    async def run(self) -> None:
        self._seen = await self._store.read(_last)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(), name="changes.hear")
            self.ready.set()
            while True:
                await self._wait()
                await self._look()

    async def _hear(self) -> None:
        """Returns where the engine cannot tell; otherwise listens for as long as this process lives."""
        while True:
            try:
                await self._store.hear(self._heard)
                return
            except FaosError as error:
                log.warning("changes.listener_lost", extra={names.CODE: error.code.code})
            finally:
                self._hears = False
                self._woken.set()
            await self._clock.sleep(HEAR_AGAIN_S)

    def _heard(self) -> None:
        self._hears = True
        self._woken.set()

    async def _wait(self) -> None:
        """Until woken, or until it is time to look anyway."""
        woken = asyncio.ensure_future(self._woken.wait())
        sleep = asyncio.ensure_future(self._clock.sleep(LOOK_WHILE_HEARING_S if self._hears else LOOK_S))
        try:
            await asyncio.wait([woken, sleep], return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            sleep.cancel()
        self._woken.clear()

    async def _look(self) -> None:
        try:
            while await self._look_once() == RECORDS_AT_ONCE:
                pass
        except FaosError as error:
            log.warning("changes.not_seen", extra={names.CODE: error.code.code})

    async def _look_once(self) -> int:
        """How many records were new, at most 1,000. Raises FaosError: then they come again. Whom somebody revoked is
        cut first: telling tenants may take its time."""
        rows = await self._store.read(lambda connection: connection.execute(_newer(self._seen)).all())
        named = {(row.tenant, row.target) for row in rows}
        await self._cut_refused(each for each in self._live.identities() if (each.tenant, each.node) in named)
        for tenant in sorted({row.tenant for row in rows if row.tenant}):
            await self._tenant_changed(tenant)
        self._seen = rows[-1].sequence if rows else self._seen
        return len(rows)

    async def _cut_refused(self, concerned: Iterable[NodeIdentity]) -> None:
        for identity in concerned:
            row = await self._store.read(partial(_node, identity))
            try:
                require_standing(row, identity)
            except UnauthenticatedError as error:
                log.info("session.cut", extra={names.NODE: identity.node, names.CODE: error.code.code})
                await self._live.cut(identity, error)


def _last(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(audit_records.c.sequence))).scalar() or 0


def _newer(seen: int) -> sa.Select[tuple[int, str, str]]:
    columns = (audit_records.c.sequence, audit_records.c.tenant, audit_records.c.target)
    newer = sa.select(*columns).where(audit_records.c.sequence > seen)
    return newer.order_by(audit_records.c.sequence).limit(RECORDS_AT_ONCE)


def _node(identity: NodeIdentity, connection: sa.Connection) -> Any:
    """Its row; None for one that was evicted."""
    return connection.execute(sa.select(nodes.c.site, nodes.c.standing).where(is_node(identity))).first()
