"""The admin API's server: gRPC over TLS, with health and reflection."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from control_plane.api.errors import ADDRESS_TAKEN
from control_plane.api.interceptor import AdminInterceptor
from control_plane.api.interfaces import Authenticator, ConfigService, FingerprintWords, JoinTokens, Sessions
from control_plane.api.node_queries import NodeQueries
from control_plane.api.servicers import AuditServicer, NodeServicer, ResourceServicer, TenantServicer
from control_plane.audit.service import AuditService
from control_plane.tenants.service import TenantService
from faos.admin.v1 import admin_pb2
from faos.admin.v1 import admin_pb2_grpc as admin_grpc
from faos_core import names
from faos_core.errors import SetupError
from tunnel.tls import KEEPALIVE_MS, Credentials

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024 * 1024  # an apply of 10,000 resources
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_CALLS = 256  # at once; further ones get RESOURCE_EXHAUSTED
STOP_GRACE_S = 3.0

SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.so_reuseport", 0),  # two control planes on one port is a mistake here, not a feature
)


@dataclass(frozen=True, slots=True)
class AdminServices:
    """What the API serves."""

    tenants: TenantService
    nodes: NodeQueries
    join_tokens: JoinTokens
    config: ConfigService
    audit: AuditService
    sessions: Sessions
    fingerprint_words: FingerprintWords


class AdminServer:
    """Serves faos.admin.v1. A supervised service; `port` holds once it is ready."""

    name = "admin-api"

    def __init__(
        self, listen: str, credentials: Credentials, *, authenticator: Authenticator, services: AdminServices
    ) -> None:
        """listen: host:port, port 0 for any. credentials: the server's own; clients show a token, no certificate."""
        self.ready = asyncio.Event()
        self.port = 0
        self._listen = listen
        self._credentials = credentials
        self._interceptor = AdminInterceptor(authenticator, services.audit)
        self._services = services
        self._health = health.aio.HealthServicer()

    async def run(self) -> None:
        """Serve until cancelled; then calls have 3 s to end. Raises SetupError (admin.address_taken)."""
        server = grpc.aio.server(
            options=SERVER_OPTIONS, interceptors=[self._interceptor], maximum_concurrent_rpcs=MAX_CALLS
        )
        await self._register(server)
        self.port = self._bind(server)
        await server.start()
        log.info("admin_api.listening", extra={names.PORT: self.port})
        self.ready.set()
        try:
            await server.wait_for_termination()
        finally:
            await asyncio.shield(self._stop(server))

    async def _register(self, server: grpc.aio.Server) -> None:
        services = self._services
        nodes = NodeServicer(services.nodes, services.join_tokens, services.sessions, services.fingerprint_words)
        admin_grpc.add_TenantServiceServicer_to_server(TenantServicer(services.tenants), server)
        admin_grpc.add_NodeServiceServicer_to_server(nodes, server)
        admin_grpc.add_ResourceServiceServicer_to_server(ResourceServicer(services.config, services.nodes), server)
        admin_grpc.add_AuditServiceServicer_to_server(AuditServicer(services.audit), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in served_names():
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((*served_names(), health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    def _bind(self, server: grpc.aio.Server) -> int:
        pair = [(self._credentials.key_pem, self._credentials.chain_pem)]
        try:
            port = server.add_secure_port(self._listen, grpc.ssl_server_credentials(pair))
        except RuntimeError as error:
            raise SetupError(ADDRESS_TAKEN, address=self._listen) from error
        if port == 0:
            raise SetupError(ADDRESS_TAKEN, address=self._listen)
        return port

    async def _stop(self, server: grpc.aio.Server) -> None:
        """Watchers of health hear NOT_SERVING, then the calls end or are ended."""
        await self._health.enter_graceful_shutdown()
        await server.stop(STOP_GRACE_S)


def served_names() -> list[str]:
    """Full names of the admin services, from the proto."""
    return sorted(service.full_name for service in admin_pb2.DESCRIPTOR.services_by_name.values())
