"""The admin API's server: gRPC over TLS, with health and reflection."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from control_plane.api.interceptor import AdminInterceptor
from control_plane.api.interfaces import (
    Authenticator,
    ConfigService,
    FingerprintWords,
    JoinTokens,
    Metering,
    Sessions,
    Standings,
    TrustService,
)
from control_plane.api.node_queries import NodeQueries
from control_plane.api.servicers import (
    AuditServicer,
    NodeServicer,
    ResourceServicer,
    TelemetryServicer,
    TenantServicer,
    TrustServicer,
)
from control_plane.audit.service import AuditService
from control_plane.telemetry.calls import CallObserver
from control_plane.tenants.service import TenantService
from faos.admin.v1 import admin_pb2
from faos.admin.v1 import admin_pb2_grpc as admin_grpc
from faos_core import names
from tunnel.tls import Credentials, bind, server_options

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024 * 1024  # an apply of 10,000 resources
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_CALLS = 256  # at once; further ones get RESOURCE_EXHAUSTED
STOP_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class AdminServices:
    """What the API serves."""

    tenants: TenantService
    nodes: NodeQueries
    join_tokens: JoinTokens
    standings: Standings
    config: ConfigService
    trust: TrustService
    audit: AuditService
    sessions: Sessions
    fingerprint_words: FingerprintWords
    metering: Metering
    observer: CallObserver


class AdminServer:
    """Serves faos.admin.v1. A supervised service; `port` holds once it is ready."""

    name = "admin-api"

    def __init__(
        self,
        listen: str,
        credentials: Credentials,
        authenticator: Authenticator,
        services: AdminServices,
        called: Callable[[], None] = lambda: None,
    ) -> None:
        """listen: host:port, port 0 for any. credentials: the server's own; clients show a token, no certificate.
        called: hears of each call that changes nothing as it begins."""
        self.ready = asyncio.Event()
        self.port = 0
        self._listen = listen
        self._credentials = credentials
        self._interceptor = AdminInterceptor(authenticator, services.audit, observer=services.observer, called=called)
        self._services = services
        self._health = health.aio.HealthServicer()

    async def run(self) -> None:
        """Serve until cancelled; then calls have 3 s to end. Raises SetupError (port.taken)."""
        options = server_options(max_receive_bytes=MAX_REQUEST_BYTES, max_send_bytes=MAX_ANSWER_BYTES)
        server = grpc.aio.server(options=options, interceptors=[self._interceptor], maximum_concurrent_rpcs=MAX_CALLS)
        await self._register(server)
        self.port = bind(server, self._listen, self._credentials.for_server(mutual=False), setting="admin_listen")
        try:
            await server.start()
            log.info("admin_api.listening", extra={names.PORT: self.port})
            self.ready.set()
            await server.wait_for_termination()
        finally:
            await asyncio.shield(self._stop(server))

    async def _register(self, server: grpc.aio.Server) -> None:
        services = self._services
        nodes = NodeServicer(
            services.nodes, services.join_tokens, services.standings, services.sessions, services.fingerprint_words
        )
        admin_grpc.add_TenantServiceServicer_to_server(TenantServicer(services.tenants), server)
        admin_grpc.add_NodeServiceServicer_to_server(nodes, server)
        admin_grpc.add_ResourceServiceServicer_to_server(ResourceServicer(services.config, services.nodes), server)
        admin_grpc.add_TrustServiceServicer_to_server(TrustServicer(services.trust), server)
        admin_grpc.add_AuditServiceServicer_to_server(AuditServicer(services.audit), server)
        admin_grpc.add_TelemetryServiceServicer_to_server(TelemetryServicer(services.metering), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in served_names():
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((*served_names(), health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    async def _stop(self, server: grpc.aio.Server) -> None:
        """Watchers of health hear NOT_SERVING, then the calls end or are ended."""
        await self._health.enter_graceful_shutdown()
        await server.stop(STOP_GRACE_S)


def served_names() -> list[str]:
    """Full names of the admin services, from the proto."""
    return sorted(service.full_name for service in admin_pb2.DESCRIPTOR.services_by_name.values())
