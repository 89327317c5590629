"""The audit log: a record goes into the transaction of what it records, so there is neither without the other.

Each leaf is the RFC 6962 leaf hash over its record and the leaf before, so that no record can be changed, removed
or put in unnoticed. Cutting the end off is noticed only by whoever kept a later leaf.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from control_plane.audit.errors import CHAIN_BROKEN
from control_plane.audit.models import DONE, AuditRecord
from control_plane.audit.refusals import RefusalLimit
from control_plane.db.models import audit_records
from control_plane.db.paging import fetch_page
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import FaosError, IntegrityError
from faos_core.lifecycle import undivided
from faos_core.merkle import leaf_hash
from faos_core.store import Store
from faos_core.store_dialect import wake_others

log = logging.getLogger(__name__)

GENESIS = bytes(32)  # the leaf before the first
MAX_TEXT = 255  # characters of one column
COUNT_EVERY_S = 60.0
LEFT_OUT = "faos.control_plane/RefusalsLeftOut"  # its target is how many


def record(
    connection: sa.Connection,
    *,
    actor: str,
    action: str,
    tenant: str,
    target: str,
    outcome: str = DONE,
    at: datetime | None = None,
) -> AuditRecord:
    """Append within the caller's transaction: when this raises, or the transaction fails, nothing was done.

    Other control planes over the database are woken by it and look at what it is about (fleet/changes.py).
    Only in serial writes (`Store.write`), which one process at a time does; elsewhere the primary key would refuse the
    record of whoever comes second, never fork the chain.
    at: aware; None means now. Text beyond 255 characters is cut, and NUL, which PostgreSQL cannot hold, replaced.
    """
    sequence, previous = _head(connection)
    texts = {
        name: text[:MAX_TEXT].replace("\0", "\ufffd")
        for name, text in (("actor", actor), ("tenant", tenant), ("target", target))
    }
    entry = AuditRecord(sequence + 1, at or datetime.now(UTC), action=action, outcome=outcome, **texts)
    connection.execute(audit_records.insert().values(leaf_sha256=leaf_of(entry, previous), **_columns(entry)))
    wake_others(connection)
    return entry


def stamped(clock: Clock) -> Callable[..., AuditRecord]:
    """`record`, by this clock where its caller names no time."""

    def write(connection: sa.Connection, *, at: datetime | None = None, **entry: str) -> AuditRecord:
        return record(connection, at=at or clock.now(), **entry)

    return write


def _head(connection: sa.Connection) -> tuple[int, bytes]:
    """Sequence and leaf of the last record."""
    columns = (audit_records.c.sequence, audit_records.c.leaf_sha256)
    last = connection.execute(sa.select(*columns).order_by(columns[0].desc()).limit(1)).one_or_none()
    return (last.sequence, last.leaf_sha256) if last else (0, GENESIS)


def leaf_of(entry: AuditRecord, previous: bytes) -> bytes:
    """The leaf hash of a record that follows the leaf `previous`; what an offline verifier computes."""
    fields = _columns(entry) | {"at": entry.at.astimezone(UTC).isoformat(timespec="microseconds")}
    body = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return leaf_hash(previous + body.encode())


def _columns(entry: AuditRecord) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in AuditRecord.__slots__}


def verify(connection: sa.Connection) -> int:
    """How many records there are, all of which hold. Raises IntegrityError at the first that does not."""
    previous, sequence = GENESIS, 0
    for row in connection.execute(sa.select(audit_records).order_by(audit_records.c.sequence)):
        sequence += 1
        if row.sequence != sequence or row.leaf_sha256 != leaf_of(_entry(row), previous):
            raise IntegrityError(CHAIN_BROKEN, sequence=sequence)
        previous = row.leaf_sha256
    return sequence


def _entry(row: Row[Any]) -> AuditRecord:
    return AuditRecord(**{name: row._mapping[name] for name in AuditRecord.__slots__})


class AuditService:
    """The audit log, from outside a mutation. A supervised service: while it runs, what was left out is counted in it.

    Only refusals are ever left out (refusals.py); their counts are lost with a process that is killed.
    """

    name = "audit"

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        """clock: None means the machine's."""
        self._store = store
        self.ready = asyncio.Event()
        self._clock = clock or SystemClock()
        self._record = stamped(self._clock)
        self._limit = RefusalLimit()

    async def run(self) -> None:
        """Record the counts, now and then and at the end."""
        self.ready.set()
        try:
            while True:
                await self._clock.sleep(COUNT_EVERY_S)
                await self._count()
        finally:
            await undivided(self._count())

    async def _count(self) -> None:
        for actor, count in self._limit.counts().items():
            log.warning("audit.refusals_left_out", extra={names.SIZE: count})
            try:
                await self._write(
                    actor=actor, action=LEFT_OUT, tenant="", target=str(count), outcome="RESOURCE_EXHAUSTED"
                )
            except FaosError as error:
                log.error("audit.failed", extra={names.CODE: error.code.code})

    async def record(self, *, actor: str, action: str, tenant: str, target: str, outcome: str) -> None:
        """Record what was refused or failed, in a transaction of its own; beyond a rate it is counted instead."""
        if self._limit.allows(actor, self._clock.monotonic_s()):
            await self._write(actor=actor, action=action, tenant=tenant, target=target, outcome=outcome)

    async def _write(self, *, actor: str, action: str, tenant: str, target: str, outcome: str) -> None:
        await self._store.write(
            lambda connection: self._record(
                connection, actor=actor, action=action, tenant=tenant, target=target, outcome=outcome
            )
        )

    async def list(self, tenant: str, *, page_size: int, page_token: str) -> tuple[list[AuditRecord], str]:
        """A page of records, newest first, and the next page's token. tenant: empty means all."""
        query = sa.select(audit_records)
        if tenant:
            query = query.where(audit_records.c.tenant == tenant)
        rows, next_page_token = await self._store.read(
            lambda connection: fetch_page(
                connection,
                query,
                keys=[audit_records.c.sequence],
                scope=f"audit/{tenant}",
                page_size=page_size,
                page_token=page_token,
                newest_first=True,
            )
        )
        return [_entry(row) for row in rows], next_page_token

    async def verify(self) -> int:
        """As `verify`, over the whole log."""
        return await self._store.read(verify)
