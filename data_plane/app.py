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
from data_plane.storage.service import Storage, open_storage
from data_plane.telemetry.board import Board
from data_plane.telemetry.link import ObservedSession
from data_plane.telemetry.service import open_telemetry, tools_of
from data_plane.tools.broker import ToolServers
from data_plane.tools.pins import StoredPins
from faos_core import event_loop, names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import FaosError, SetupError, StopError
from faos_core.lifecycle import running, settle_memory, until_signal
from faos_core.meters import Meters
from faos_core.tracing import OFF, Tracer
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


def run(settings: NodeSettings) -> None:
    """A process of its own: `serve`, on the loop that planes run on."""
    event_loop.run(serve(settings))


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
    async with AsyncExitStack() as stack:
        ground = await open_ground(stack, settings, clock or SystemClock())
        works = await open_works(stack, ground)
        meters, egress = Meters(), ground.egress
        telemetry = await stack.enter_async_context(
            open_telemetry(settings, egress, ground.membership, meters, lambda: tools_of(works.activation))
        )
        link = await open_link(ground, works, telemetry or OFF)
        for part in (link.session, link.runs.sight, egress.ledger.meter, works.storage.store.meter):
            meters.add(part.instruments())
        site = SiteServer(settings.data_dir, site_api(ground, works, link, meters), folder_is_owned=True)
        alarms = AlarmWatch(link.spool, lambda: link.facts(works.tools).state().alarms, ground.clock)
        resumer = Resumer(works.activation, link.runs)
        first = [telemetry] if telemetry else []  # and last to stop
        async with running([*first, works.knowledge, link.applier, link.runs, resumer, site, link.client, alarms]):
            yield Node(ground.membership, link.applier, works.activation, link.runs, link.session, egress, link.spool)
            link.applier.stopping()


@dataclass(frozen=True, slots=True)
class Ground:
    """What every part of a node stands on."""

    settings: NodeSettings
    clock: Clock
    ceiling: Ceiling
    embedder: EmbedderFiles
    identity: IdentityStore
    membership: Membership
    egress: Egress


async def open_ground(stack: AsyncExitStack, settings: NodeSettings, clock: Clock) -> Ground:
    """Raises SetupError, IntegrityError for what a person must mend."""
    ceiling, embedder = allowed(settings)
    identity = IdentityStore(settings.data_dir)
    membership, network = identity.load(), settings.network()
    stack.enter_context(owned(settings.data_dir))
    egress = await stack.enter_async_context(open_egress(settings.data_dir, ceiling, clock=clock, network=network))
    return Ground(settings, clock, ceiling, embedder, identity, membership, egress)


@dataclass(frozen=True, slots=True)
class Works:
    """What a node works with, whether or not there is a control plane."""

    storage: Storage
    embedder: OnnxEmbedder
    models: ModelCatalogue
    tools: ToolServers
    knowledge: KnowledgeService
    activation: NodeActivation


async def open_works(stack: AsyncExitStack, ground: Ground) -> Works:
    settings, ceiling, open_door = ground.settings, ground.ceiling, ground.egress.http_door
    tenant, verifier = ground.membership.identity.tenant, FileVerifier()
    storage = await stack.enter_async_context(
        open_storage(settings.data_dir, tenant=tenant, database_url=settings.database_url)
    )
    embedder = await OnnxEmbedder.load(ground.embedder, verifier)
    stack.push_async_callback(embedder.aclose)
    models = ModelCatalogue(ceiling.models, verifier, endpoints=ceiling.endpoints, open_door=open_door)
    stack.push_async_callback(models.aclose)
    pins = StoredPins(storage.store, ground.clock)
    tools = await stack.enter_async_context(ToolServers(ceiling, clock=ground.clock, pins=pins, open_door=open_door))
    knowledge = KnowledgeService(storage.store, storage.sealer, embedder)
    activation = NodeActivation(
        ceiling, models=models, tools=tools, knowledge=knowledge, identifiers=ground.egress.identifiers
    )
    return Works(storage, embedder, models, tools, knowledge, activation)


@dataclass(frozen=True, slots=True)
class Link:
    """What takes configuration from the control plane, runs agents, and tells of both."""

    ground: Ground
    applier: Applier
    runs: Runs
    spool: EventSpool
    session: ObservedSession
    certificates: NodeCertificates
    client: TunnelClient

    def facts(self, tools: ToolServers) -> "LinkFacts":
        ground = self.ground
        return LinkFacts(
            ground.membership,
            self.session,
            self.applier,
            self.certificates,
            self.client,
            ground.egress.authorities,
            tools,
        )


async def open_link(ground: Ground, works: Works, tracer: Tracer) -> Link:
    """Nothing dials before the client runs."""
    egress, clock, settings, blobs = ground.egress, ground.clock, ground.settings, BlobFetcher()
    applier = made_applier(ground, works, blobs, tracer)
    epoch = ground.identity.next_epoch()
    spool = await EventSpool.open(
        works.storage.store,
        clock,
        node=ground.membership.identity.spiffe_id,
        epoch=epoch,
        allow=egress.identifiers.allow,
        limits=settings.events,
    )
    journal = Journal(works.storage.store, works.storage.sealer, clock, ended=RunEndings(spool))
    ports = Ports(works.activation, works.models, works.embedder, works.tools, works.knowledge)
    runs = Runs(journal, ports, ground.ceiling.limits, clock, tracer)
    session = ObservedSession(
        sent_bytes=lambda: egress.ledger.meter.sent_bytes(DOOR),
        applier=applier,
        gate=egress.gate,
        identifiers=egress.identifiers,
        counts=runs.counts,
        epoch=epoch,
        clock=clock,
    )
    certificates = NodeCertificates(ground.identity, clock, allow=egress.identifiers.allow)
    client = TunnelClient(
        ground.membership.addresses,
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
    return Link(ground, applier, runs, spool, session, certificates, client)


def made_applier(ground: Ground, works: Works, blobs: BlobFetcher, tracer: Tracer) -> Applier:
    membership, settings = ground.membership, ground.settings
    return Applier(
        store=ConfigStore(settings.data_dir / "config"),
        trust=Trust(membership.tuf_root, clock=ground.clock),
        activation=works.activation,
        health=works.activation.health,
        blobs=DeclaredBlobs(blobs, ground.egress.identifiers),
        ceiling=ground.ceiling,
        scope=NodeScope(membership.identity.tenant, membership.labels),
        clock=ground.clock,
        settings=apply_settings(settings),
        tracer=tracer,
    )


def site_api(ground: Ground, works: Works, link: Link, meters: Meters) -> SiteApi:
    egress = ground.egress
    board = Board(
        ground.clock.now(),
        ground.membership,
        link.session,
        link.certificates,
        works.activation,
        works.tools,
        link.runs,
        ground.ceiling.limits,
        egress.ledger.meter,
        link.spool,
        meters,
    )
    endpoints = EndpointModels(ground.ceiling.endpoints, egress.http_door)
    facts = Facts(link.facts(works.tools), works.activation, egress.gate, board)
    return SiteApi(link.runs, facts, endpoints, works.tools)


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
