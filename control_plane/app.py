"""The control plane, put together: build the services, wire them, run them in one task group."""

import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from control_plane.api.bootstrap_admin import BootstrapAdmin
from control_plane.api.node_queries import NodeQueries
from control_plane.api.server import AdminServer, AdminServices
from control_plane.audit.service import AuditService, stamped
from control_plane.config.service import ConfigService
from control_plane.config.trust_service import TrustService
from control_plane.db.retention import Retention
from control_plane.db.schema import migrate_schema
from control_plane.fleet.changes import ChangeFeed
from control_plane.fleet.events import EventLog
from control_plane.fleet.frame_record import open_recorder
from control_plane.fleet.liveness import Liveness
from control_plane.identity.authority import Authority
from control_plane.identity.enrolment import JoinTokens
from control_plane.identity.standing import NodeStandings
from control_plane.settings import ENDPOINTS_FILE, ControlPlaneSettings
from control_plane.telemetry.calls import CallObserver
from control_plane.telemetry.fleet import ObservedFleet
from control_plane.telemetry.service import Metering, make_telemetry
from control_plane.tenants.service import TenantService
from faos_core import event_loop, names
from faos_core.address import local_address
from faos_core.clock import Clock, SystemClock
from faos_core.disk import Disk
from faos_core.lifecycle import running, settle_memory, until_signal
from faos_core.meters import Meters
from faos_core.store import Store
from faos_core.tracing import OFF
from tunnel.identity import fingerprint_words
from tunnel.server import TunnelServer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running control plane is reached on this machine."""

    tunnel_port: int
    admin_port: int


def run(settings: ControlPlaneSettings, *, on_ready: Callable[[Endpoints], None]) -> None:
    """A process of its own: `serve`, on the loop that planes run on."""
    event_loop.run(serve(settings, on_ready=on_ready))


async def serve(settings: ControlPlaneSettings, *, on_ready: Callable[[Endpoints], None]) -> None:
    """Run until SIGINT or SIGTERM. Raises SetupError for what a person must mend."""
    async with control_plane(settings) as endpoints:
        on_ready(endpoints)
        fields = {names.PORT: endpoints.tunnel_port, names.ADMIN_PORT: endpoints.admin_port}
        log.info("control_plane.ready", extra=fields)
        settle_memory()
        await until_signal()
    log.info("control_plane.stopped")


@asynccontextmanager
async def control_plane(settings: ControlPlaneSettings, *, clock: Clock | None = None) -> AsyncIterator[Endpoints]:
    """A whole control plane in this process, ready while the context is open."""
    clock = clock or SystemClock()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate_schema(settings.database)
    authority = Authority.open(
        settings.data_dir / "ca", clock, node_lifetime=timedelta(seconds=settings.node_certificate_lifetime_s)
    )
    authenticator = BootstrapAdmin.open(settings.admin_token_file)
    async with Store(settings.database) as store:
        with open_recorder(settings.received_frames_file) as recorder:
            config = ConfigService(store, settings.data_dir / "keys", clock)
            trust = TrustService(store, settings.data_dir / "keys", clock, config.tell)
            meters = Meters()
            telemetry = make_telemetry(settings.telemetry, settings.data_dir, meters, clock)
            fleet = ObservedFleet(store, config, clock, tracer=telemetry or OFF)
            calls = CallObserver(telemetry or OFF)
            meters.add([*fleet.instruments(), calls.duration, *store.meter.instruments()])
            tokens = JoinTokens(store, authority, stamped(clock), clock, settings.public_addresses)
            standings = NodeStandings(store, authority, stamped(clock))
            credentials = authority.server_credentials(settings.public_addresses)
            tunnel = TunnelServer(
                settings.tunnel_listen,
                credentials,
                enrolments=tokens,
                renewals=standings,
                fleet=fleet,
                events=EventLog(store, clock, kept_per_node=settings.events_kept_per_node),
                clock=clock,
                heartbeat_s=settings.heartbeat_s,
                recorder=recorder,
            )
            standings.on_cut(tunnel.cut)
            config.on_change(tunnel.targets_changed)
            audit = AuditService(store, clock)
            services = AdminServices(
                tenants=TenantService(store, clock, trust.create_tenant_keys),
                nodes=NodeQueries(store),
                join_tokens=tokens,
                standings=standings,
                config=config,
                trust=trust,
                audit=audit,
                sessions=Liveness(tunnel.is_live, fleet.replica, clock, settings.heartbeat_s),
                fingerprint_words=partial(fingerprint_words, authority.der),
                metering=Metering(meters, fleet),
                observer=calls,
            )
            admin = AdminServer(settings.admin_listen, credentials, authenticator, services, tunnel.make_room)
            changes = ChangeFeed(store, tunnel, clock, tenant_changed=config.changed)
            retention = make_retention(store, clock, settings)
            async with running([*([telemetry] if telemetry else []), audit, retention, changes, tunnel, admin]):
                tokens.addresses = settings.public_addresses or [
                    str(local_address(settings.tunnel_listen, tunnel.port))
                ]
                endpoints = Endpoints(tunnel.port, admin.port)
                announce(settings, endpoints)
                yield endpoints


def make_retention(store: Store, clock: Clock, settings: ControlPlaneSettings) -> Retention:
    return Retention(
        store,
        clock,
        statuses_kept_per_node=settings.statuses_kept_per_node,
        answers_kept_s=settings.request_answers_kept_s,
    )


def announce(settings: ControlPlaneSettings, endpoints: Endpoints) -> None:
    """Tell other processes of this machine the ports; whole or not at all."""
    facts = {
        "pid": os.getpid(),
        "tunnel_port": endpoints.tunnel_port,
        "admin_port": endpoints.admin_port,
        "tunnel_listen": str(local_address(settings.tunnel_listen, endpoints.tunnel_port)),
        "admin_listen": str(local_address(settings.admin_listen, endpoints.admin_port)),
    }
    Disk().put(settings.data_dir, {ENDPOINTS_FILE: json.dumps(facts).encode()})
