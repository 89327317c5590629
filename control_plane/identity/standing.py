"""What a node's certificates are worth: renewed, recovered after expiry, revoked, forgotten.

Two-phase: a new certificate is pending beside the current one until a session has opened with it, so a crash at any
point, on either side, leaves the node with one that is honoured. Source: DESIGN section 4, docs/dev/adr/0008.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding

from control_plane.db.models import node_config_status, node_events, nodes
from control_plane.identity.authority import Authority
from control_plane.identity.enrolment import AuditRecord, key_digest
from control_plane.identity.errors import (
    NODE_BANNED,
    NODE_QUARANTINED,
    NODE_REVOKED,
    NODE_UNKNOWN,
    NODE_UNKNOWN_HERE,
    REASON_TOO_LONG,
    RECOVERY_REUSED,
)
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.errors import DeniedError, FaosError, InvalidError, NotFoundError, UnauthenticatedError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName, parse_recovery_id
from faos_core.store import Store
from tunnel.tls import Peer

log = logging.getLogger(__name__)

REASON_MOST = 255
AS_ONE = {
    "standing": admin.NODE_STANDING_ADMITTED,
    "alarm": "",
    "recovery_counter": 0,
    "boot_id": None,
    "epoch": 0,
    "ledger_size": 0,
    "ledger_root": None,
}
Cut = Callable[[NodeIdentity, FaosError], Awaitable[None]]
REFUSALS = {admin.NODE_STANDING_REVOKED: NODE_REVOKED, admin.NODE_STANDING_QUARANTINED: NODE_QUARANTINED}


async def cut_nothing(identity: NodeIdentity, error: FaosError) -> None:
    """Before the tunnel is there, no stream is."""


class NodeStandings:
    """Implements tunnel.interfaces.Renewals, and what operators do to nodes. Safe for concurrent use."""

    def __init__(self, store: Store, authority: Authority, audit: AuditRecord) -> None:
        self._store = store
        self._authority = authority
        self._audit = audit
        self._cut: Cut = cut_nothing

    def on_cut(self, cut: Cut) -> None:
        """`cut` ends every live stream of a node; it is called once the database says so."""
        self._cut = cut

    async def renew(self, identity: NodeIdentity, request: tunnel.RenewRequest) -> tunnel.RenewResponse:
        """Raises UnauthenticatedError (not in good standing), InvalidError (request)."""
        return await self._store.write(lambda connection: self._issue(connection, identity, request.csr_der))

    async def recover(self, request: tunnel.RecoverRequest, peer: Peer) -> tunnel.RenewResponse:
        """Raises UnauthenticatedError, InvalidError; DeniedError for a counter that was seen, after quarantine."""
        identity = parse_recovery_id(peer.uri)
        answer = await self._store.write(lambda connection: self._recover(connection, identity, request, peer))
        if answer is None:
            error = DeniedError(RECOVERY_REUSED, node=identity.node)
            log.error("node.quarantined", extra={names.NODE: identity.node})
            await self._cut(identity, error)
            raise error
        return answer

    async def revoke(self, tenant: str, name: str, *, reason: str, actor: str) -> None:
        """Ban a node. Idempotent. Raises NotFoundError, InvalidError (reason too long)."""
        if len(reason) > REASON_MOST:
            raise InvalidError(REASON_TOO_LONG, most=REASON_MOST)

        def write(connection: sa.Connection) -> NodeIdentity:
            identity = _found(connection, tenant, name)
            values = {"standing": admin.NODE_STANDING_REVOKED, "standing_reason": reason}
            connection.execute(sa.update(nodes).where(is_node(identity)).values(values))
            self._record(connection, "RevokeNode", identity, actor)
            return identity

        identity = await self._store.write(write)
        await self._cut(identity, UnauthenticatedError(NODE_REVOKED, node=identity.node))

    async def evict(self, tenant: str, name: str, *, actor: str) -> None:
        """Forget a node; its machine may join again as another one. Raises NotFoundError."""

        def write(connection: sa.Connection) -> NodeIdentity:
            identity = _found(connection, tenant, name)
            status = node_config_status.c
            connection.execute(sa.delete(node_config_status).where(status.tenant == tenant, status.node == name))
            events = node_events.c
            connection.execute(sa.delete(node_events).where(events.tenant == tenant, events.node == name))
            connection.execute(sa.delete(nodes).where(is_node(identity)))
            self._record(connection, "EvictNode", identity, actor)
            return identity

        identity = await self._store.write(write)
        await self._cut(identity, UnauthenticatedError(NODE_UNKNOWN, node=identity.node))

    async def readmit(self, tenant: str, name: str, *, reason: str, actor: str) -> None:
        """End a node's quarantine and its alarm, once there is one machine of it: whichever comes next is believed,
        its counts of starts and of recoveries too. Two that come are told again. Idempotent.
        Raises NotFoundError, InvalidError (reason too long), DeniedError (revoked)."""
        if len(reason) > REASON_MOST:
            raise InvalidError(REASON_TOO_LONG, most=REASON_MOST)

        def write(connection: sa.Connection) -> None:
            identity = _found(connection, tenant, name)
            update = sa.update(nodes).where(is_node(identity), nodes.c.standing != admin.NODE_STANDING_REVOKED)
            if connection.execute(update.values(AS_ONE | {"standing_reason": reason})).rowcount == 0:
                raise DeniedError(NODE_BANNED, node=identity.node)
            log.warning("node.readmitted", extra={names.NODE: identity.node})
            self._record(connection, "ReadmitNode", identity, actor)

        await self._store.write(write)

    def _record(self, connection: sa.Connection, method: str, identity: NodeIdentity, actor: str) -> None:
        action = f"faos.admin.v1.NodeService/{method}"
        self._audit(connection, actor=actor, action=action, tenant=identity.tenant, target=identity.node, outcome="OK")

    def _issue(self, connection: sa.Connection, identity: NodeIdentity, csr_der: bytes) -> tunnel.RenewResponse:
        """A certificate that is pending from now on, in place of one that never arrived."""
        require_standing(connection.execute(sa.select(nodes).where(is_node(identity))).first(), identity)
        certificate = self._authority.node_certificate(csr_der, identity)
        values = {
            "pending_serial": serial_of(certificate.serial_number),
            "pending_expires_at": certificate.not_valid_after_utc,
            "pending_key_sha256": key_digest(certificate),
        }
        connection.execute(sa.update(nodes).where(is_node(identity)).values(values))
        log.info("certificate.issued", extra={names.NODE: identity.node})
        return tunnel.RenewResponse(certificate_chain_der=[certificate.public_bytes(Encoding.DER)])

    def _recover(
        self, connection: sa.Connection, identity: NodeIdentity, request: tunnel.RecoverRequest, peer: Peer
    ) -> tunnel.RenewResponse | None:
        """None: the counter was seen before, and the node is in quarantine now."""
        row = connection.execute(sa.select(nodes).where(is_node(identity))).first()
        require_standing(row, identity)
        if row is None or row.recovery_serial != serial_of(peer.serial):
            raise UnauthenticatedError(NODE_UNKNOWN, node=identity.node)
        update = sa.update(nodes).where(is_node(identity))
        actor, action = f"node/{identity.node}", "faos.tunnel.v1.Tunnel/Recover"
        where = {"tenant": identity.tenant, "target": identity.node}
        if request.counter <= row.recovery_counter:
            connection.execute(update.values(standing=admin.NODE_STANDING_QUARANTINED, alarm=RECOVERY_REUSED.code))
            self._audit(connection, actor=actor, action=action, outcome="PERMISSION_DENIED", **where)
            return None
        if request.counter >= 2**63:
            raise InvalidError(RECOVERY_REUSED, node=identity.node)
        connection.execute(update.values(recovery_counter=request.counter))
        self._audit(connection, actor=actor, action=action, outcome="OK", **where)
        return self._issue(connection, identity, request.csr_der)


def require_standing(row: sa.Row[Any] | None, identity: NodeIdentity) -> None:
    """row: its columns `site` and `standing`. Raises UnauthenticatedError for a node not, or no longer, admitted."""
    if row is None or row.site != identity.site:
        raise UnauthenticatedError(NODE_UNKNOWN, node=identity.node)
    if row.standing != admin.NODE_STANDING_ADMITTED:
        raise UnauthenticatedError(REFUSALS[row.standing], node=identity.node)


def serial_of(number: int) -> str:
    """As the database keeps it."""
    return f"{number:x}"


def is_node(identity: NodeIdentity) -> sa.ColumnElement[bool]:
    return sa.and_(nodes.c.tenant == identity.tenant, nodes.c.name == identity.node)


def _found(connection: sa.Connection, tenant: str, name: str) -> NodeIdentity:
    """Its row is locked: what the node says at this moment is written before, or refused."""
    query = sa.select(nodes.c.site).where(nodes.c.tenant == tenant, nodes.c.name == name)
    site = connection.execute(query.with_for_update()).scalar()
    if site is None:
        raise NotFoundError(NODE_UNKNOWN_HERE, tenant=tenant[:80], node=name[:80])
    return NodeIdentity(TenantName(tenant), SiteName(site), NodeName(name))
