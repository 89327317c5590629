"""A whole admin API over real TLS, for tests: real database, real CA, real services."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from control_plane.api.bootstrap_admin import BootstrapAdmin
from control_plane.api.node_queries import NodeQueries
from control_plane.api.server import AdminServer, AdminServices
from control_plane.audit.service import AuditService, record
from control_plane.config.service import ConfigService
from control_plane.config.trust_service import TrustService
from control_plane.db.schema import migrate_schema
from control_plane.identity.authority import Authority
from control_plane.identity.enrolment import JoinTokens
from control_plane.identity.standing import NodeStandings
from control_plane.telemetry.calls import CallObserver
from control_plane.telemetry.fleet import ObservedFleet
from control_plane.telemetry.service import Metering
from control_plane.tenants.service import TenantService
from faos.admin.v1 import admin_pb2_grpc as admin_grpc
from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity
from faos_core.lifecycle import running
from faos_core.meters import Meters
from faos_core.store import Store
from tunnel.tls import Credentials

TOKEN_FILE = "admin.token"


class OpenSessions:
    """A Sessions that a test opens and closes."""

    def __init__(self) -> None:
        self.live: set[NodeIdentity] = set()

    def is_live(self, identity: NodeIdentity, *, connected_to: str, last_seen_at: datetime | None) -> bool:
        return identity in self.live


def words_of(public_key_sha256: bytes) -> Sequence[str]:
    return [public_key_sha256.hex()[:8]]


@dataclass(frozen=True, slots=True)
class AdminApi:
    """A running API and what stands behind it."""

    address: str
    ca_pem: bytes
    token: str
    store: Store
    sessions: OpenSessions
    audit: AuditService

    def channel(self, token: str | None = None, **options: Any) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """A TLS channel; without a token its calls carry none."""
        credentials = grpc.ssl_channel_credentials(self.ca_pem)
        if token is not None:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        return grpc.aio.secure_channel(self.address, credentials, options=list(options.items()))


@dataclass(frozen=True, slots=True)
class Client:
    """Stubs that carry the bootstrap token."""

    tenants: "admin_grpc.TenantServiceAsyncStub"
    nodes: "admin_grpc.NodeServiceAsyncStub"
    resources: "admin_grpc.ResourceServiceAsyncStub"
    audit: "admin_grpc.AuditServiceAsyncStub"


def credentials_of(folder: Path) -> Credentials:
    return Authority.open(folder / "ca", SystemClock()).server_credentials([])


def services_over(store: Store, folder: Path, sessions: OpenSessions) -> AdminServices:
    clock = SystemClock()
    config = ConfigService(store, folder / "keys", clock)
    trust = TrustService(store, folder / "keys", clock, config.tell)
    authority = Authority.open(folder / "ca", clock)
    return AdminServices(
        tenants=TenantService(store, clock, trust.create_tenant_keys),
        nodes=NodeQueries(store),
        join_tokens=JoinTokens(store, authority, record, clock, ["cp.example:7443"]),
        standings=NodeStandings(store, authority, record),
        config=config,
        trust=trust,
        audit=AuditService(store),
        sessions=sessions,
        fingerprint_words=words_of,
        metering=Metering(Meters(), ObservedFleet(store, config, clock)),
        observer=CallObserver(),
    )


@asynccontextmanager
async def admin_api(folder: Path, database_url: str | None = None) -> AsyncIterator[AdminApi]:
    """Serve on a free port until left. database_url: None for a file in the folder."""
    url = database_url or f"sqlite:///{folder / 'control-plane.db'}"
    await asyncio.to_thread(migrate_schema, url)
    credentials, sessions = credentials_of(folder), OpenSessions()
    admin = BootstrapAdmin.open(folder / TOKEN_FILE)
    async with Store(url) as store:
        services = services_over(store, folder, sessions)
        server = AdminServer("127.0.0.1:0", credentials, authenticator=admin, services=services)
        async with running([server]):
            token = (folder / TOKEN_FILE).read_text().strip()
            address = f"localhost:{server.port}"
            yield AdminApi(address, credentials.ca_pem, token, store, sessions, services.audit)


@asynccontextmanager
async def client_of(api: AdminApi) -> AsyncIterator[Client]:
    async with api.channel(api.token) as channel:
        yield Client(
            admin_grpc.TenantServiceStub(channel),
            admin_grpc.NodeServiceStub(channel),
            admin_grpc.ResourceServiceStub(channel),
            admin_grpc.AuditServiceStub(channel),
        )
