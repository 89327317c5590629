"""Join tokens, and what they are turned into: nodes with certificates."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from control_plane.db.models import join_tokens, nodes, sites, tenants
from control_plane.db.paging import fetch_page
from control_plane.identity.authority import Authority, enrolment_uri
from control_plane.identity.errors import (
    ADDRESS_MALFORMED,
    NODE_REVOKED,
    TOKEN_EXPIRED,
    TOKEN_UNKNOWN,
    TOKEN_USED,
    TTL_TOO_LONG,
)
from control_plane.tenants.errors import SITE_UNKNOWN
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.address import parse_address
from faos_core.clock import Clock
from faos_core.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName, new_id
from faos_core.labels import SITE_LABEL, check_labels
from faos_core.store import Store
from tunnel.identity import encode_join_string, fingerprint_words, public_der
from tunnel.tls import Peer

DEFAULT_TTL_S = 3600
MOST_TTL_S = 7 * 24 * 3600


class AuditRecord(Protocol):
    """Writes one audit row in the caller's transaction; see control_plane.audit."""

    def __call__(
        self, connection: sa.Connection, *, actor: str, action: str, tenant: str, target: str, outcome: str
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class JoinTokenRecord:
    """A token as it may be shown: without its secret."""

    id: str
    tenant: str
    site: str
    labels: Mapping[str, str]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by_node: str


class JoinTokens:
    """Makes tokens and honours them, each once."""

    def __init__(
        self, store: Store, authority: Authority, audit: AuditRecord, clock: Clock, addresses: Sequence[str]
    ) -> None:
        """addresses: host:port of the tunnel as nodes reach it, where a request names none."""
        self._store = store
        self._authority = authority
        self._audit = audit
        self._clock = clock
        self.addresses = addresses

    async def create(
        self,
        *,
        actor: str,
        tenant: str,
        site: str,
        labels: Mapping[str, str],
        ttl_s: int,
        addresses: Sequence[str] = (),
    ) -> tuple[JoinTokenRecord, str]:
        """The record and the join string, which is not kept. Raises NotFoundError (site), InvalidError."""
        ttl_s = _checked(labels, ttl_s)
        _check_addresses(addresses)
        secret, now = secrets.token_bytes(32), self._clock.now()
        record = JoinTokenRecord(
            new_id("jt"), tenant, site, dict(labels), now, now + timedelta(seconds=ttl_s), None, ""
        )
        root = await self._store.write(lambda connection: self._insert(connection, record, secret, actor))
        return record, self._join_string(record, secret, root, addresses or self.addresses, ttl_s)

    async def list(self, *, tenant: str, page_size: int, page_token: str) -> tuple[list[JoinTokenRecord], str]:
        """Newest first, and the token of the next page."""
        query = sa.select(join_tokens).where(join_tokens.c.tenant == tenant)
        rows, next_token = await self._store.read(
            lambda connection: fetch_page(
                connection,
                query,
                keys=[join_tokens.c.id],
                scope=f"join_tokens/{tenant}",
                page_size=page_size,
                page_token=page_token,
                newest_first=True,
            )
        )
        return [_record(row) for row in rows], next_token

    async def enroll(self, request: tunnel.EnrollRequest, peer: Peer) -> tunnel.EnrollResponse:
        """Turn the token into a node, once. Raises DeniedError, ConflictError, InvalidError."""
        if peer.uri != enrolment_uri(request.token_id):
            raise DeniedError(TOKEN_UNKNOWN)
        return await self._store.write(lambda connection: self._enroll(connection, request))

    def _insert(self, connection: sa.Connection, record: JoinTokenRecord, secret: bytes, actor: str) -> bytes:
        """The tenant's TUF root."""
        here = sa.select(sites).where(sites.c.tenant == record.tenant, sites.c.name == record.site)
        if connection.execute(here).first() is None:
            raise NotFoundError(SITE_UNKNOWN, site=record.site, tenant=record.tenant)
        row = {
            "id": record.id,
            "tenant": record.tenant,
            "site": record.site,
            "labels": dict(record.labels),
            "secret_sha256": hashlib.sha256(secret).digest(),
            "created_at": record.created_at,
            "expires_at": record.expires_at,
        }
        connection.execute(sa.insert(join_tokens).values(row))
        action = "faos.admin.v1.NodeService/CreateJoinToken"
        self._audit(connection, actor=actor, action=action, tenant=record.tenant, target=record.id, outcome="OK")
        return _tuf_root(connection, record.tenant)

    def _join_string(
        self, record: JoinTokenRecord, secret: bytes, root: bytes, addresses: Sequence[str], ttl_s: int
    ) -> str:
        certificate = self._authority.enrolment_certificate(secret, record.id, timedelta(seconds=ttl_s))
        join = tunnel.JoinString(
            addresses=addresses,
            ca_certificate_der=self._authority.der,
            token_id=record.id,
            secret=secret,
            enrolment_certificate_der=certificate.public_bytes(Encoding.DER),
            tuf_root_sha256=hashlib.sha256(root).digest(),
            tenant=record.tenant,
            site=record.site,
        )
        return encode_join_string(join)

    def _enroll(self, connection: sa.Connection, request: tunnel.EnrollRequest) -> tunnel.EnrollResponse:
        now = self._clock.now()
        token = self._usable(connection, request, now)
        node = NodeName(f"node-{secrets.token_hex(4)}")
        identity = NodeIdentity(TenantName(token.tenant), SiteName(token.site), node)
        certificate = self._authority.node_certificate(request.csr_der, identity)
        recovery = self._recovery(request, identity)
        self._refuse_banned(connection, token.tenant, certificate, *recovery)
        labels = self._labels(connection, token)
        row = _node_row(identity, certificate, labels, now) | _recovery_columns(recovery)
        connection.execute(sa.insert(nodes).values(row))
        used = sa.update(join_tokens).where(join_tokens.c.id == token.id).values(used_at=now, used_by_node=node)
        connection.execute(used)
        self._audit(
            connection,
            actor=f"join-token/{token.id}",
            action="faos.tunnel.v1.Enrollment/Enroll",
            tenant=token.tenant,
            target=node,
            outcome="OK",
        )
        response = self._response(identity, certificate, labels, _tuf_root(connection, token.tenant))
        response.recovery_chain_der.extend(each.public_bytes(Encoding.DER) for each in recovery)
        return response

    def _recovery(self, request: tunnel.EnrollRequest, identity: NodeIdentity) -> Sequence[x509.Certificate]:
        """One, or none for a node that sent no key for it."""
        csr_der = request.recovery_csr_der
        return [self._authority.recovery_certificate(csr_der, identity)] if csr_der else []

    def _refuse_banned(self, connection: sa.Connection, tenant: str, *certificates: x509.Certificate) -> None:
        """Raises DeniedError when a key is that of a revoked node."""
        digests = [key_digest(certificate) for certificate in certificates]
        columns = (nodes.c.public_key_sha256, nodes.c.pending_key_sha256, nodes.c.recovery_key_sha256)
        banned = sa.select(nodes.c.name).where(
            nodes.c.tenant == tenant,
            nodes.c.standing == admin.NODE_STANDING_REVOKED,
            sa.or_(*(column.in_(digests) for column in columns)),
        )
        if (name := connection.execute(banned).scalar()) is not None:
            raise DeniedError(NODE_REVOKED, node=name)

    def _usable(self, connection: sa.Connection, request: tunnel.EnrollRequest, now: datetime) -> sa.Row[Any]:
        token = connection.execute(sa.select(join_tokens).where(join_tokens.c.id == request.token_id)).first()
        digest = hashlib.sha256(request.secret).digest()
        if token is None or not hmac.compare_digest(token.secret_sha256, digest):
            raise DeniedError(TOKEN_UNKNOWN)
        if token.used_at:
            raise ConflictError(TOKEN_USED, node=token.used_by_node, used_at=f"{token.used_at:%Y-%m-%d %H:%M:%S} UTC")
        if token.expires_at <= now:
            raise DeniedError(TOKEN_EXPIRED, expired_at=f"{token.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
        return token

    def _labels(self, connection: sa.Connection, token: sa.Row[Any]) -> dict[str, str]:
        """The site's labels, the token's over them, and the site's name over both."""
        here = sa.select(sites.c.labels).where(sites.c.tenant == token.tenant, sites.c.name == token.site)
        return {**connection.execute(here).scalar_one(), **token.labels, SITE_LABEL: token.site}

    def _response(
        self, identity: NodeIdentity, certificate: x509.Certificate, labels: Mapping[str, str], root: bytes
    ) -> tunnel.EnrollResponse:
        return tunnel.EnrollResponse(
            spiffe_id=identity.spiffe_id,
            certificate_chain_der=[certificate.public_bytes(Encoding.DER)],
            ca_bundle_der=[self._authority.der],
            tuf_root=root,
            labels=labels,
            fingerprint_words=fingerprint_words(self._authority.der, key_digest(certificate)),
            tenant=identity.tenant,
            site=identity.site,
            node=identity.node,
        )


def _recovery_columns(certificates: Sequence[x509.Certificate]) -> dict[str, Any]:
    columns = ({"recovery_serial": f"{c.serial_number:x}", "recovery_key_sha256": key_digest(c)} for c in certificates)
    return next(columns, {})


def key_digest(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the certificate's public key."""
    key = public_der(certificate.public_key())  # type: ignore[arg-type]  # the authority signs P-256 keys only
    return hashlib.sha256(key).digest()


def _check_addresses(addresses: Sequence[str]) -> None:
    """A string with an address that no node can dial would fail far from here. Raises InvalidError."""
    for address in addresses:
        try:
            parse_address(address)
        except ValueError as error:
            raise InvalidError(ADDRESS_MALFORMED, address=address) from error


def _checked(labels: Mapping[str, str], ttl_s: int) -> int:
    """The time to live, with its default. Raises InvalidError."""
    check_labels(labels, owner="the join token")
    if ttl_s > MOST_TTL_S:
        raise InvalidError(TTL_TOO_LONG, ttl_s=ttl_s, most_s=MOST_TTL_S)
    return ttl_s or DEFAULT_TTL_S


def _node_row(
    identity: NodeIdentity, certificate: x509.Certificate, labels: Mapping[str, str], now: datetime
) -> dict[str, Any]:
    return {
        "tenant": identity.tenant,
        "name": identity.node,
        "site": identity.site,
        "spiffe_id": identity.spiffe_id,
        "labels": dict(labels),
        "enrolled_at": now,
        "public_key_sha256": key_digest(certificate),
        "certificate_serial": f"{certificate.serial_number:x}",
        "certificate_expires_at": certificate.not_valid_after_utc,
    }


def _tuf_root(connection: sa.Connection, tenant: str) -> bytes:
    root: bytes = connection.execute(sa.select(tenants.c.tuf_root).where(tenants.c.name == tenant)).scalar_one()
    return root


def _record(row: sa.Row[Any]) -> JoinTokenRecord:
    return JoinTokenRecord(
        row.id,
        row.tenant,
        row.site,
        row.labels,
        row.created_at,
        row.expires_at,
        row.used_at,
        row.used_by_node or "",
    )
