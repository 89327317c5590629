"""A node, put together: build the services, wire them, run them in one task group."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from data_plane.activation import NodeActivation
from data_plane.agents.journal import Journal
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.api.interfaces import Facts, LinkState
from data_plane.api.server import SiteServer, owned
from data_plane.api.service import SiteApi
from data_plane.ceiling.load import load_ceiling
from data_plane.ceiling.models import Ceiling, EmbedderFiles
from data_plane.egress.authorities import Authorities
from data_plane.egress.service import Egress, open_egress
from data_plane.errors import EMBEDDER_MISSING
from data_plane.events.makers import AlarmWatch, RunEndings
from data_plane.events.spool import EventSpool
from data_plane.identity.certificates import NodeCertificates
from data_plane.identity.store import IdentityStore, Membership
from data_plane.link.applier import Applier, ApplySettings, NodeScope
from data_plane.link.apply_machine import Deadlines
from data_plane.link.config_store import ConfigStore
from data_plane.link.declared_blobs import DeclaredBlobs
from data_plane.link.session import NodeSession
from data_plane.link.trust import Trust
from data_plane.memory.service import KnowledgeService
from data_plane.models.catalogue import ModelCatalogue
from data_plane.models.embedder import OnnxEmbedder
from data_plane.models.endpoint_models import EndpointModels
from data_plane.models.verification import FileVerifier
from data_plane.settings import NodeSettings
from data_plane.storage.service import open_storage
from data_plane.telemetry.board import Board
from data_plane.telemetry.link import ObservedSession
from data_plane.telemetry.service import open_telemetry, tools_of
from data_plane.tools.broker import ToolServers
from data_plane.tools.pins import StoredPins
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import FaosError, SetupError, StopError
from faos_core.lifecycle import running, settle_memory, until_signal
from faos_core.meters import Meters
from faos_core.tracing import OFF
from tunnel.backoff import Backoff
from tunnel.client import DOOR, BlobFetcher, TunnelClient

log = logging.getLogger(__name__)

SOAK_SLACK_S = 30.0  # beyond the soak, before it counts as stuck


@dataclass(frozen=True, slots=True)
class Node:
    """A running node, for whoever runs it in their own process."""

    membership: Membership
    applier: Applier
    activation: NodeActivation
    runs: Runs
    session: NodeSession
    egress: Egress
    events: EventSpool


async def serve(settings: NodeSettings) -> None:
    """Run until SIGINT or SIGTERM. Raises SetupError, IntegrityError for what a person must mend."""
    async with node(settings) as running_node:
        log.info("node.ready", extra={names.NODE: running_node.membership.identity.node})
        settle_memory()
        await until_signal()
    log.info("node.stopped")


@asynccontextmanager
async def node(settings: NodeSettings, *, clock: Clock | None = None) -> AsyncIterator[Node]:
    """A whole node in this process; last known good runs, or an alarm says why not, while the context is open."""
    clock = clock or SystemClock()
    ceiling, embedder_files = allowed(settings)
    identity = IdentityStore(settings.data_dir)
    membership, network = identity.load(), settings.network()
    verifier, blobs = FileVerifier(), BlobFetcher()
    async with AsyncExitStack() as stack:
        stack.enter_context(owned(settings.data_dir))
        egress = await stack.enter_async_context(open_egress(settings.data_dir, ceiling, clock=clock, network=network))
        meters = Meters()
        telemetry = await stack.enter_async_context(
            open_telemetry(settings, egress, membership, meters, lambda: tools_of(activation))
        )
        tenant, url = membership.identity.tenant, settings.database_url
        storage = await stack.enter_async_context(open_storage(settings.data_dir, tenant=tenant, database_url=url))
        embedder = await OnnxEmbedder.load(embedder_files, verifier)
        stack.push_async_callback(embedder.aclose)
        models = ModelCatalogue(ceiling.models, verifier, endpoints=ceiling.endpoints, open_door=egress.http_door)
        stack.push_async_callback(models.aclose)
        pins = StoredPins(storage.store, clock)
        tools = await stack.enter_async_context(
            ToolServers(ceiling, clock=clock, pins=pins, open_door=egress.http_door)
        )
        knowledge = KnowledgeService(storage.store, storage.sealer, embedder)
        activation = NodeActivation(
            ceiling, models=models, tools=tools, knowledge=knowledge, identifiers=egress.identifiers
        )
        applier = Applier(
            store=ConfigStore(settings.data_dir / "config"),
            trust=Trust(membership.tuf_root, clock=clock),
            activation=activation,
            health=activation.health,
            blobs=DeclaredBlobs(blobs, egress.identifiers),
            ceiling=ceiling,
            scope=NodeScope(membership.identity.tenant, membership.labels),
            clock=clock,
            settings=apply_settings(settings),
            tracer=telemetry or OFF,
        )
        epoch = identity.next_epoch()
        spool = await EventSpool.open(
            storage.store,
            clock,
            node=membership.identity.spiffe_id,
            epoch=epoch,
            allow=egress.identifiers.allow,
            limits=settings.events,
        )
        journal = Journal(storage.store, storage.sealer, clock, ended=RunEndings(spool))
        ports = Ports(activation, models, embedder, tools, knowledge)
        runs = Runs(journal, ports, ceiling.limits, clock, telemetry or OFF)
        session = ObservedSession(
            sent_bytes=lambda: egress.ledger.meter.sent_bytes(DOOR),
            applier=applier,
            gate=egress.gate,
            identifiers=egress.identifiers,
            counts=runs.counts,
            epoch=epoch,
            clock=clock,
        )
        certificates = NodeCertificates(identity, clock, allow=egress.identifiers.allow)
        client = TunnelClient(
            membership.addresses,
            certificates,
            sealer=egress.gate,
            node=session,
            blobs=blobs,
            clock=clock,
            backoff=Backoff(cap_s=settings.dial_again_s),
            route=egress.route,
            events=spool,
        )
        session.failure = lambda: client.failure
        ledger = egress.ledger.meter
        since, limits = clock.now(), ceiling.limits
        board = Board(since, membership, session, certificates, activation, tools, runs, limits, ledger, spool, meters)
        for part in (session, runs.sight, ledger, storage.store.meter):
            meters.add(part.instruments())
        link = LinkFacts(membership, session, applier, certificates, client, egress.authorities, tools)
        endpoints = EndpointModels(ceiling.endpoints, egress.http_door)
        api = SiteApi(runs, Facts(link, activation, egress.gate, board), endpoints, tools)
        site = SiteServer(settings.data_dir, api, folder_is_owned=True)
        alarms = AlarmWatch(spool, lambda: link.state().alarms, clock)
        first = [telemetry] if telemetry else []  # and last to stop
        resumer = Resumer(activation, runs)
        async with running([*first, knowledge, applier, runs, resumer, site, client, alarms]):
            yield Node(membership, applier, activation, runs, session, egress, spool)
            applier.stopping()


class Resumer:
    """Takes up the runs that a crash cut off, once there is a configuration to go on with. A supervised service.

    Where last known good cannot be activated yet, the runs wait for it; they are not failed for want of it.
    """

    name = "resumer"

    def __init__(self, activation: NodeActivation, runs: Runs) -> None:
        self.ready = asyncio.Event()
        self._activation = activation
        self._runs = runs

    async def run(self) -> None:
        self.ready.set()
        await self._activation.activated.wait()
        log.info("runs.resumed", extra={names.SIZE: await self._runs.resume_all()})
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the local API shows of the link."""

    membership: Membership
    session: NodeSession
    applier: Applier
    certificates: NodeCertificates
    client: TunnelClient
    authorities: Authorities
    tools: ToolServers

    def state(self) -> LinkState:
        facts = self.applier.facts()
        return LinkState(
            spiffe_id=self.membership.identity.spiffe_id,
            connected=self.session.is_connected,
            attempted_revision=facts.attempted_revision,
            healthy_revision=facts.healthy_revision,
            alarms=(
                *self.applier.alarms(),
                *self.certificates.alarms(),
                *self.authorities.alarms(),
                *(each.code for each in self.client.clock_difference.alarms()),
                *self.tools.alarms(),
                *(each.code.code for each in [self.problem()] if isinstance(each, StopError)),
            ),
            problem=self.problem(),
        )

    def problem(self) -> FaosError | None:
        """Why there is no session, as far as that is known; a StopError does not go away by itself."""
        return None if self.session.is_connected else self.client.failure


def allowed(settings: NodeSettings) -> tuple[Ceiling, EmbedderFiles]:
    """The site's ceiling. Raises SetupError, for one without an embedder too."""
    ceiling = load_ceiling(settings.ceiling_path)
    if ceiling.embedder is None:
        raise SetupError(EMBEDDER_MISSING, file=settings.ceiling_path)
    return ceiling, ceiling.embedder


def apply_settings(settings: NodeSettings) -> ApplySettings:
    times = settings.apply
    deadlines = Deadlines(
        verifying_s=times.verify_s,
        activating_s=times.activate_s,
        soaking_s=times.soak_s * 2 + SOAK_SLACK_S,
        stuck_s=times.stuck_s,
    )
    return ApplySettings(soak_s=times.soak_s, deadlines=deadlines)
