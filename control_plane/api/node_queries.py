"""What the database knows about nodes, for people who ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from control_plane.api.errors import NODE_NOT_FOUND
from control_plane.db.models import node_config_status, node_events, nodes, revisions
from control_plane.db.paging import fetch_page
from control_plane.tenants.service import require_site, require_tenant
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_core.errors import NotFoundError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.store import Store

MAX_HISTORY = 100
MAX_REFUSALS = 100
REFUSALS = (ApplyState.APPLY_STATE_REJECTED, ApplyState.APPLY_STATE_ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class NackFacts:
    """A NACK in the numbers that the node sent."""

    failed_to_reach: int
    code: int
    kind: int
    resource_name: str
    field_path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """What became of a node's configuration. Revisions are 0 for none."""

    attempted_revision: int
    running_revision: int
    healthy_revision: int
    state: int  # of the attempted revision
    nack: NackFacts | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One row of the nodes table, and what its tenant wants of it."""

    identity: NodeIdentity
    labels: Mapping[str, str]
    enrolled_at: datetime
    last_seen_at: datetime | None
    connected_to: str  # the control plane that holds its session, as it said last; empty: none
    version: str
    public_key_sha256: bytes
    certificate_expires_at: datetime
    desired_revision: int
    config: ConfigFacts
    ledger_size: int
    ledger_root: bytes
    active_runs: int
    finished_runs: int
    standing: int  # NodeStanding
    standing_reason: str
    alarm: str  # a code of the registry; empty: none
    event_count: int
    lost_event_count: int


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    """What one node made of one revision."""

    node: str
    site: str
    config: ConfigFacts


@dataclass(frozen=True, slots=True)
class EventFacts:
    """Something that happened at a node."""

    tenant: str
    node: str
    received_at: datetime
    body: bytes  # faos.tunnel.v1.Event


class NodeQueries:
    """Reads only; each answer is one consistent snapshot."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, tenant: str, site: str, *, page_size: int, page_token: str) -> tuple[Sequence[NodeFacts], str]:
        """A page of nodes by tenant and name. Empty tenant or site: every one.

        Raises: NotFoundError (tenant, site), InvalidError (page token).
        """

        def fetch(connection: sa.Connection) -> tuple[list[NodeFacts], str]:
            _require(connection, tenant, site)
            rows, next_page_token = fetch_page(
                connection,
                _nodes(tenant, site=site),
                keys=[nodes.c.tenant, nodes.c.name],
                scope=f"nodes/{tenant}/{site}",
                page_size=page_size,
                page_token=page_token,
            )
            return [_node(row) for row in rows], next_page_token

        return await self._store.read(fetch)

    async def get(self, tenant: str, name: str) -> tuple[NodeFacts, Sequence[ConfigFacts]]:
        """A node, and what became of each revision offered to it: newest first, at most 100.

        Raises: NotFoundError (tenant, node).
        """

        def fetch(connection: sa.Connection) -> tuple[NodeFacts, list[ConfigFacts]]:
            require_tenant(connection, tenant)
            row = connection.execute(_nodes(tenant).where(nodes.c.name == name)).one_or_none()
            if row is None:
                raise NotFoundError(NODE_NOT_FOUND, tenant=tenant, node=name[:80])
            return _node(row), [_past(each) for each in connection.execute(_history(tenant, name))]

        return await self._store.read(fetch)

    async def events(
        self, tenant: str, node: str, *, page_size: int, page_token: str
    ) -> tuple[Sequence[EventFacts], str]:
        """Newest first. Empty tenant or node: every one. Raises: NotFoundError (tenant, node), InvalidError."""
        table = node_events.c
        order = [table.epoch, table.sequence] if tenant and node else []

        def fetch(connection: sa.Connection) -> tuple[list[EventFacts], str]:
            _require_node(connection, tenant, node)
            rows, next_page_token = fetch_page(
                connection,
                _events(tenant, node),
                keys=order or [table.received_at_us, table.tenant, table.node, table.epoch, table.sequence],
                scope=f"events/{tenant}/{node}",
                page_size=page_size,
                page_token=page_token,
                newest_first=True,
            )
            return [_event(row) for row in rows], next_page_token

        return await self._store.read(fetch)

    async def of_revision(self, tenant: str, revision: int) -> Sequence[RevisionStatus]:
        """What each node that was offered the revision made of it, by name."""

        def fetch(connection: sa.Connection) -> list[RevisionStatus]:
            rows = connection.execute(_of_revision(tenant, revision))
            return [RevisionStatus(row.node, row.site, _past(row)) for row in rows]

        return await self._store.read(fetch)

    async def refusals_of(self, tenant: str, revision: int) -> Sequence[RevisionStatus]:
        """Nodes that refused the revision, by name; at most 100."""
        refused = _of_revision(tenant, revision).where(node_config_status.c.state.in_(REFUSALS)).limit(MAX_REFUSALS)
        rows = await self._store.read(lambda connection: connection.execute(refused).all())
        return [RevisionStatus(row.node, row.site, _past(row)) for row in rows]


def _of_revision(tenant: str, revision: int) -> sa.Select[Any]:
    return (
        sa.select(node_config_status, nodes.c.site)
        .join(nodes, (nodes.c.tenant == node_config_status.c.tenant) & (nodes.c.name == node_config_status.c.node))
        .where(node_config_status.c.tenant == tenant, node_config_status.c.revision == revision)
        .order_by(node_config_status.c.node)
    )


def _events(tenant: str, node: str) -> sa.Select[Any]:
    query = sa.select(node_events)
    query = query.where(node_events.c.tenant == tenant) if tenant else query
    return query.where(node_events.c.node == node) if node else query


def _event(row: Row[Any]) -> EventFacts:
    received_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.received_at_us)
    return EventFacts(row.tenant, row.node, received_at, row.body)


def _require_node(connection: sa.Connection, tenant: str, node: str) -> None:
    if tenant:
        require_tenant(connection, tenant)
    named = sa.select(nodes.c.name).where(nodes.c.name == node)
    named = named.where(nodes.c.tenant == tenant) if tenant else named
    if node and connection.execute(named.limit(1)).first() is None:
        raise NotFoundError(NODE_NOT_FOUND, tenant=tenant, node=node[:80])


def _require(connection: sa.Connection, tenant: str, site: str) -> None:
    if site and tenant:
        require_site(connection, tenant, site)
    elif tenant:
        require_tenant(connection, tenant)


def _nodes(tenant: str, *, site: str = "") -> sa.Select[Any]:
    """Node rows with the tenant's standing revision: one revision serves every node of a tenant."""
    newest = sa.select(sa.func.max(revisions.c.number)).where(revisions.c.tenant == nodes.c.tenant)
    query = sa.select(nodes, newest.scalar_subquery().label("desired_revision"))
    query = query.where(nodes.c.tenant == tenant) if tenant else query
    return query.where(nodes.c.site == site) if site else query


def _history(tenant: str, node: str) -> sa.Select[Any]:
    status = node_config_status
    query = sa.select(status).where(status.c.tenant == tenant, status.c.node == node)
    return query.order_by(status.c.revision.desc()).limit(MAX_HISTORY)


def _node(row: Row[Any]) -> NodeFacts:
    return NodeFacts(
        identity=NodeIdentity(TenantName(row.tenant), SiteName(row.site), NodeName(row.name)),
        labels=row.labels,
        enrolled_at=row.enrolled_at,
        last_seen_at=row.last_seen_at,
        connected_to=row.connected_to,
        version=row.version,
        public_key_sha256=row.public_key_sha256,
        certificate_expires_at=row.certificate_expires_at,
        desired_revision=row.desired_revision or 0,
        config=_present(row),
        ledger_size=row.ledger_size,
        ledger_root=row.ledger_root or b"",
        active_runs=row.active_runs,
        finished_runs=row.finished_runs,
        standing=row.standing,
        standing_reason=row.standing_reason,
        alarm=row.alarm,
        event_count=row.event_count,
        lost_event_count=row.lost_event_count,
    )


def _present(row: Row[Any]) -> ConfigFacts:
    """What the node last said."""
    return ConfigFacts(
        attempted_revision=row.attempted_revision,
        running_revision=row.running_revision,
        healthy_revision=row.healthy_revision,
        state=row.state,
        nack=_nack(row),
        at=row.status_at,
    )


def _past(row: Row[Any]) -> ConfigFacts:
    """What became of one revision; says nothing about the others."""
    healthy = row.revision if row.state == ApplyState.APPLY_STATE_HEALTHY else 0
    return ConfigFacts(row.revision, healthy, healthy, row.state, _nack(row), row.at)


def _nack(row: Row[Any]) -> NackFacts | None:
    if row.state not in REFUSALS or row.nack_code is None:
        return None
    return NackFacts(
        failed_to_reach=row.nack_failed_to_reach or 0,
        code=row.nack_code,
        kind=row.nack_kind or 0,
        resource_name=row.nack_resource_name or "",
        field_path=tuple(row.nack_field_path or ()),
    )
