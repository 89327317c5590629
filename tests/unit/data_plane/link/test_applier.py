"""Offers from bytes to a running configuration, over real TUF metadata and a real store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_plane.ceiling.models import Ceiling
from data_plane.link.applier import Applier, ApplySettings, NodeScope
from data_plane.link.apply_machine import TERMINAL, Deadlines
from data_plane.link.config_store import ConfigStore
from data_plane.link.interfaces import Configuration, ConfigurationError
from data_plane.link.trust import Trust
from faos.resource.v1 import resource_pb2
from faos.resource.v1.resource_pb2 import Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ApplyStatus, ConfigOffer, Nack, NackCode
from faos_core.clock import SystemClock
from faos_core.errors import IntegrityError, NotFoundError, UnavailableError, define
from faos_core.kinds import field_path_names
from faos_core.lifecycle import running
from tests.fixtures.resources_of_a_site import CEILING, LABELS, agent, knowledge_base, model, named, site, tool_server
from tests.fixtures.tuf_publisher import TENANT, Publisher
from tests.patience import PATIENCE_S

NOWHERE = define("test.blob_nowhere", what="No blob.", why="A test.", next_step="None.")
SICK = Nack(code=tunnel.NACK_CODE_TOOL_SERVER_FAILED)


class Plant:
    """Stands for models, tools and knowledge: runs what it is told, or fails, or hangs."""

    def __init__(self) -> None:
        self.active = Configuration()
        self.activated: list[int] = []
        self.failure: Nack | None = None
        self.sickness: Callable[[Configuration], Nack | None] = lambda _: None
        self.hangs_at: int | None = None
        self.hangs = asyncio.Event()

    async def activate(self, configuration: Configuration) -> None:
        if self.failure:
            raise ConfigurationError(self.failure)
        if configuration.revision == self.hangs_at:
            self.hangs.set()
            await asyncio.Event().wait()
        self.active = configuration
        self.activated.append(configuration.revision)

    def running(self) -> Configuration:
        return self.active

    def health(self) -> Nack | None:
        return self.sickness(self.active)


@dataclass
class Shelf:
    """Stands for GetBlob; down for its first `failures` calls."""

    blobs: dict[bytes, bytes] = field(default_factory=dict)
    failures: int = 0
    asked: list[bytes] = field(default_factory=list)

    async def get(self, sha256: bytes) -> bytes:
        self.asked.append(sha256)
        if self.failures:
            self.failures -= 1
            raise UnavailableError(NOWHERE)
        if sha256 not in self.blobs:
            raise NotFoundError(NOWHERE)
        return self.blobs[sha256]

    def stock(self, *resources: Resource) -> None:
        bodies = [resource.SerializeToString(deterministic=True) for resource in resources]
        self.blobs |= {hashlib.sha256(body).digest(): body for body in bodies}


class QuickClock(SystemClock):
    """Real time, but nobody sleeps long."""

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(min(duration_s, 0.01))


@dataclass
class Node:
    """One node's configuration side, and what it takes to restart it."""

    folder: Path
    publisher: Publisher
    plant: Plant = field(default_factory=Plant)
    shelf: Shelf = field(default_factory=Shelf)
    ceiling: Ceiling = CEILING
    deadlines: Deadlines = field(default_factory=Deadlines)
    applier: Applier = field(init=False)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Applier]:
        self.applier = Applier(
            store=ConfigStore(self.folder / "config"),
            trust=Trust(self.publisher.tuf_root),
            activation=self.plant,
            health=self.plant.health,
            blobs=self.shelf,
            ceiling=self.ceiling,
            scope=NodeScope(TENANT, LABELS),
            clock=QuickClock(),
            settings=ApplySettings(soak_s=0.02, poll_s=0.005, deadlines=self.deadlines),
        )
        async with running([self.applier]):
            yield self.applier

    async def apply(self, offer: ConfigOffer) -> ApplyStatus:
        """Offer, and wait for what becomes of it."""
        await self.applier.offer(offer)
        return await self.outcome_of(offer)

    async def outcome_of(self, offer: ConfigOffer) -> ApplyStatus:
        async with asyncio.timeout(PATIENCE_S):
            async for status in self.applier.statuses:
                if status.nonce == offer.nonce and status.state in TERMINAL:
                    return status
        raise AssertionError("statuses never end")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Publisher())


def outcome(status: ApplyStatus) -> tuple[str, str]:
    state = tunnel.ApplyState.Name(status.state).removeprefix("APPLY_STATE_")
    return state, tunnel.NackCode.Name(status.nack.code).removeprefix("NACK_CODE_")


async def test_good_offer_becomes_healthy_and_last_known_good(node: Node) -> None:
    """The whole way of a configuration, and the facts that go with its acknowledgement."""
    async with node.up():
        status = await node.apply(node.publisher.offer(1, site()))

    assert outcome(status) == ("HEALTHY", "UNSPECIFIED")
    facts = status.config
    assert (facts.attempted_revision, facts.running_revision, facts.healthy_revision) == (1, 1, 1)
    assert facts.high_water_revision == 1
    assert node.plant.active.names() == {"helper", "llm", "rules", "time", "allow-time"}


async def test_restart_without_control_plane_runs_last_known_good(node: Node) -> None:
    """The site works with the cloud gone; neither a fetch nor a clock is needed to boot."""
    async with node.up():
        await node.apply(node.publisher.offer(1, site()))
    node.plant = Plant()

    async with node.up() as applier:
        assert node.plant.active.revision == 1
        assert applier.facts().running_revision == 1
        assert applier.alarms() == ()
    assert node.shelf.asked == []


async def test_only_missing_bodies_are_fetched(node: Node) -> None:
    """Offers carry what the node lacks; what neither carries is asked for by digest."""
    async with node.up() as applier:
        await node.apply(node.publisher.offer(1, site("1")))
        node.shelf.stock(*site("2"))
        status = await node.apply(node.publisher.offer(2, site("2"), carry=False))

    assert outcome(status)[0] == "HEALTHY"
    assert node.shelf.asked == [hashlib.sha256(site("2")[-1].SerializeToString(deterministic=True)).digest()]
    assert set(node.shelf.asked) <= set(applier.known_sha256())


async def test_broken_link_during_a_fetch_is_no_verdict(node: Node) -> None:
    """A NACK is final for its content, so a bad line must not cause one."""
    node.shelf.stock(*site())
    node.shelf.failures = 3
    async with node.up():
        status = await node.apply(node.publisher.offer(1, site(), carry=False))

    assert outcome(status)[0] == "HEALTHY"


async def test_resource_for_another_site_is_neither_fetched_nor_run(node: Node) -> None:
    """One signature serves every site; each takes its own part."""
    elsewhere = tool_server("south-only")
    elsewhere.metadata.CopyFrom(named("south-only", region="south"))
    here = model()
    here.metadata.CopyFrom(named("llm", region="north"))
    node.shelf.stock(here)
    async with node.up():
        status = await node.apply(node.publisher.offer(1, [here, elsewhere], carry=False))

    assert outcome(status)[0] == "HEALTHY"
    assert node.plant.active.names() == {"llm"}
    assert len(node.shelf.asked) == 1


def of_another_tenant(publisher: Publisher) -> ConfigOffer:
    publisher.tenant = "other"
    return publisher.offer(1, site())


def of_another_publisher(_: Publisher) -> ConfigOffer:
    return Publisher().offer(1, site())


def with_another_manifest(publisher: Publisher) -> ConfigOffer:
    offer = publisher.offer(1, site())
    offer.manifest = publisher.manifest(1, site("other"))
    return offer


def with_another_body(publisher: Publisher) -> ConfigOffer:
    offer = publisher.offer(1, site())
    offer.blobs[0].data += b"\0"
    return offer


def with_another_revision(publisher: Publisher) -> ConfigOffer:
    offer = publisher.offer(1, site())
    offer.revision = 7
    return offer


def with_garbage_signed(publisher: Publisher) -> ConfigOffer:
    return publisher.offer(1, manifest=b"\xff\xff\xff")


def without_bodies(publisher: Publisher) -> ConfigOffer:
    return publisher.offer(1, site(), carry=False)


def twice_the_same_name(publisher: Publisher) -> ConfigOffer:
    return publisher.offer(1, [model(), model()])


def of_an_unknown_kind(publisher: Publisher) -> ConfigOffer:
    manifest = resource_pb2.Manifest(tenant=TENANT, revision=1)
    manifest.entries.add(kind=99, name="new", sha256=bytes(32))  # type: ignore[arg-type]  # a kind of the future
    return publisher.offer(1, manifest=manifest.SerializeToString())


def with_a_huge_resource(publisher: Publisher) -> ConfigOffer:
    manifest = resource_pb2.Manifest(tenant=TENANT, revision=1)
    manifest.entries.add(kind=resource_pb2.KIND_AGENT, name="big", sha256=bytes(32), length_bytes=2**40)
    return publisher.offer(1, manifest=manifest.SerializeToString())


@pytest.mark.parametrize(
    ("make", "code", "unreached"),
    [
        (of_another_publisher, "SIGNATURE_INVALID", "VERIFIED"),
        (of_another_tenant, "WRONG_TENANT", "VERIFIED"),
        (with_another_manifest, "DIGEST_MISMATCH", "VERIFIED"),
        (with_another_body, "DIGEST_MISMATCH", "VERIFIED"),
        (with_another_revision, "UNPARSABLE", "VERIFIED"),
        (with_garbage_signed, "UNPARSABLE", "VERIFIED"),
        (without_bodies, "BLOB_MISSING", "VERIFIED"),
        (twice_the_same_name, "UNPARSABLE", "VERIFIED"),
        (of_an_unknown_kind, "KIND_UNKNOWN", "VERIFIED"),
        (with_a_huge_resource, "TOO_LARGE", "VERIFIED"),
    ],
)
async def test_bad_offer_is_refused_and_changes_nothing(
    node: Node, make: Callable[[Publisher], ConfigOffer], code: str, unreached: str
) -> None:
    """Nothing of an offer that does not hold is kept, and the node is as ready for the next as before."""
    async with node.up() as applier:
        status = await node.apply(make(node.publisher))

        assert outcome(status) == ("REJECTED", code)
        assert tunnel.ApplyState.Name(status.nack.failed_to_reach) == f"APPLY_STATE_{unreached}"
        assert status.config.high_water_revision == 0
        assert applier.known_sha256() == []
        assert applier.alarms() == ("config.rejected",)
        node.publisher.tenant = TENANT
        assert outcome(await node.apply(node.publisher.offer(9, site())))[0] == "HEALTHY"
        assert applier.alarms() == ()
    assert list((node.folder / "config" / "metadata").iterdir()) != []


async def test_older_revision_is_a_rollback(node: Node) -> None:
    """Going back is a new, higher revision with old content; anything else is an attack or a restored backup."""
    older = node.publisher.offer(1, site("1"))
    async with node.up():
        await node.apply(node.publisher.offer(2, site("2")))
        status = await node.apply(older)

        assert outcome(status) == ("REJECTED", "ROLLBACK")
        assert node.plant.active.revision == 2
        assert outcome(await node.apply(node.publisher.offer(3, site("1"))))[0] == "HEALTHY"


@pytest.mark.parametrize(
    ("stranger", "path"),
    [
        (model(source="/m/small.gguf"), "spec.source"),
        (tool_server(program="/bin/sh -c 'curl example.com'"), "spec.program"),
        (tool_server(program="example.com:443"), "spec.program"),
        (tool_server(program="unlisted"), "spec.program"),
        (knowledge_base(folder="../../etc"), "spec.folder"),
    ],
)
async def test_command_path_or_host_is_refused_though_signed(node: Node, stranger: Resource, path: str) -> None:
    """Promise 3: a compromised cloud, its publisher included, cannot make a node do what the site did not allow."""
    async with node.up():
        status = await node.apply(node.publisher.offer(1, [stranger]))

    assert outcome(status) == ("REJECTED", "NAME_NOT_IN_CEILING")
    nack = status.nack
    assert nack.resource_name == stranger.metadata.name
    assert field_path_names(nack.field_path, nack.kind) == path
    assert node.plant.activated == []


@pytest.mark.parametrize(
    ("resources", "code", "path"),
    [
        ([agent()], tunnel.NACK_CODE_REFERENCE_MISSING, "spec.model"),
        ([model(), agent(knowledge=["none"])], tunnel.NACK_CODE_REFERENCE_MISSING, "spec.knowledge[0]"),
        ([tool_server("T_T")], tunnel.NACK_CODE_UNPARSABLE, ""),
        ([Resource(metadata=named("m"), model=resource_pb2.Model())], tunnel.NACK_CODE_SPEC_INVALID, "spec.runtime"),
    ],
)
async def test_node_judges_resources_itself(
    node: Node, resources: list[Resource], code: NackCode.ValueType, path: str
) -> None:
    """The control plane has checked all this; the node trusts nobody's checks but its own."""
    async with node.up():
        status = await node.apply(node.publisher.offer(1, resources))

    assert status.nack.code == code
    assert field_path_names(status.nack.field_path, status.nack.kind) == path


async def test_kind_that_needs_approval_is_refused(node: Node) -> None:
    """Fail closed until approvals exist; the site is told in its own words, and what it took stays."""
    async with node.up():
        await node.apply(node.publisher.offer(1, [tool_server()]))
    node.ceiling = Ceiling(programs=CEILING.programs)
    async with node.up() as applier:
        changed = await node.apply(node.publisher.offer(2, [tool_server(), tool_server("second")]))
        alarms = applier.alarms()
        same = await node.apply(node.publisher.offer(3, [tool_server()]))

    assert outcome(changed) == ("REJECTED", "APPROVAL_REQUIRED")
    assert (changed.nack.kind, changed.nack.resource_name) == (resource_pb2.KIND_TOOL_SERVER, "second")
    assert alarms == ("config.approval_required",)
    assert outcome(same)[0] == "HEALTHY"


async def test_failed_activation_leaves_what_ran(node: Node) -> None:
    """The NACK of the activation goes up as it is, and nothing is torn down."""
    async with node.up():
        await node.apply(node.publisher.offer(1, site("1")))
        node.plant.failure = Nack(code=tunnel.NACK_CODE_MODEL_CHECKSUM, resource_name="llm")
        status = await node.apply(node.publisher.offer(2, site("2")))

    assert outcome(status) == ("REJECTED", "MODEL_CHECKSUM")
    assert status.nack.resource_name == "llm"
    facts = status.config
    assert (facts.attempted_revision, facts.running_revision, facts.healthy_revision) == (2, 1, 1)
    assert node.plant.activated == [1]


async def test_ill_health_rolls_back_and_stays_in_quarantine_over_a_restart(node: Node) -> None:
    """Last known good runs again before the report; the bad content is not tried a second time, ever."""
    good, bad = node.publisher.offer(1, site("1")), node.publisher.offer(2, site("2"))
    async with node.up() as applier:
        await node.apply(good)
        node.plant.sickness = lambda active: SICK if active.revision == 2 else None
        status = await node.apply(bad)

        assert outcome(status) == ("ROLLED_BACK", "TOOL_SERVER_FAILED")
        assert node.plant.activated == [1, 2, 1]
        assert (status.config.running_revision, status.config.healthy_revision) == (1, 1)
        assert applier.alarms() == ("config.rolled_back",)

    async with node.up() as applier:
        assert list(applier.facts().quarantined_manifest_sha256) == [hashlib.sha256(bad.manifest).digest()]
        bad.nonce = b"again"
        assert outcome(await node.apply(bad)) == ("REJECTED", "QUARANTINED")
        assert outcome(await node.apply(node.publisher.offer(3, site("3"))))[0] == "HEALTHY"


async def die_of(node: Node, offer: ConfigOffer) -> None:
    """One life of a process that is gone from one moment to the next while it activates the offer."""
    async with node.up() as applier:
        await applier.offer(offer)
        async with asyncio.timeout(PATIENCE_S):
            await node.plant.hangs.wait()
    node.plant = Plant()
    node.plant.hangs_at = offer.revision


async def test_what_kills_the_process_twice_is_not_tried_a_third_time(node: Node) -> None:
    """A crash loop would take the site's working configuration down with it, for good."""
    good, bad = node.publisher.offer(1, site("1")), node.publisher.offer(2, site("2"))
    async with node.up():
        assert outcome(await node.apply(good)) == ("HEALTHY", "UNSPECIFIED")
    node.plant.hangs_at = 2

    await die_of(node, bad)
    async with node.up() as applier:
        assert applier.facts().running_revision == 1
        assert list(applier.facts().quarantined_code) == []
    await die_of(node, bad)

    async with node.up() as applier:
        assert list(applier.facts().quarantined_code) == [tunnel.NACK_CODE_CRASHED]
        assert applier.alarms() == ("config.killed",)
        assert outcome(await node.apply(bad)) == ("REJECTED", "QUARANTINED")
        assert applier.facts().running_revision == 1
        assert outcome(await node.apply(node.publisher.offer(3, site("3")))) == ("HEALTHY", "UNSPECIFIED")


async def test_stop_that_somebody_asked_for_is_no_death(node: Node) -> None:
    """Who restarts an impatient machine twice has not found a defect in its configuration."""
    offer = node.publisher.offer(1, site("1"))
    node.plant.hangs_at = 1

    for _ in range(3):
        async with node.up() as applier:
            await applier.offer(offer)
            async with asyncio.timeout(PATIENCE_S):
                await node.plant.hangs.wait()
            applier.stopping()
        node.plant.hangs.clear()

    node.plant.hangs_at = None
    async with node.up():
        assert outcome(await node.apply(offer)) == ("HEALTHY", "UNSPECIFIED")


async def test_first_configuration_that_is_ill_leaves_nothing_running(node: Node) -> None:
    """Without a last known good, nothing is better than what is broken."""
    node.plant.sickness = lambda active: SICK if active.revision else None
    async with node.up():
        status = await node.apply(node.publisher.offer(1, site()))

    assert outcome(status) == ("ROLLED_BACK", "TOOL_SERVER_FAILED")
    assert node.plant.active == Configuration()


async def test_newer_offer_preempts_a_hanging_activation(node: Node) -> None:
    """The fix for what hangs gets through."""
    node.deadlines = Deadlines(stuck_s=0.2)
    node.plant.hangs_at = 1
    hanging, fix = node.publisher.offer(1, site("1")), node.publisher.offer(2, site("2"))
    async with node.up() as applier:
        await applier.offer(hanging)
        await applier.offer(fix)

        assert outcome(await node.outcome_of(hanging)) == ("REJECTED", "SUPERSEDED")
        assert outcome(await node.outcome_of(fix))[0] == "HEALTHY"
        assert applier.alarms() == ()


async def test_hanging_activation_ends_at_its_deadline(node: Node) -> None:
    """Nobody has to be there to end it."""
    node.deadlines = Deadlines(activating_s=0.2)
    node.plant.hangs_at = 1
    async with node.up():
        assert outcome(await node.apply(node.publisher.offer(1, site()))) == ("REJECTED", "DEADLINE")


async def test_nobody_listening_changes_nothing(node: Node) -> None:
    """Failing to report never triggers a rollback; the newest status waits for a session."""
    offer = node.publisher.offer(1, site())
    async with node.up() as applier:
        await applier.offer(offer)
        while not applier.facts().healthy_revision:
            await asyncio.sleep(0)

        status = await node.outcome_of(offer)

    assert (status.nonce, outcome(status)[0]) == (offer.nonce, "HEALTHY")


async def test_same_offer_after_a_reconnect_is_acknowledged_without_work(node: Node) -> None:
    """A flapping link must not reload models."""
    async with node.up():
        offer = node.publisher.offer(1, site())
        await node.apply(offer)
        offer.nonce = b"of the next stream"
        status = await node.apply(offer)

    assert (status.nonce, outcome(status)[0]) == (b"of the next stream", "HEALTHY")
    assert node.plant.activated == [1]


async def test_node_stays_up_when_last_known_good_does_not_start(node: Node) -> None:
    """A tool server that is down at boot: the node says so, tries again, and takes a new configuration meanwhile."""
    async with node.up():
        await node.apply(node.publisher.offer(1, site()))
    node.plant = Plant()
    node.plant.failure = SICK

    async with node.up() as applier:
        assert applier.alarms() == ("config.nothing_runs",)
        assert applier.facts().running_revision == 0
        node.plant.failure = None
        async with asyncio.timeout(PATIENCE_S):
            while applier.alarms():
                await asyncio.sleep(0)
        assert applier.facts().running_revision == 1


async def test_damaged_body_of_last_known_good_is_fetched_again_with_the_next_offer(node: Node) -> None:
    """The node stays reachable and heals through the control plane, loudly."""
    async with node.up():
        await node.apply(node.publisher.offer(1, site("1")))
    for blob in (node.folder / "config" / "blobs").iterdir():
        blob.write_bytes(b"rotten")
    node.plant = Plant()

    async with node.up() as applier:
        assert applier.alarms() == ("config.nothing_runs",)
        assert outcome(await node.apply(node.publisher.offer(2, site("2"))))[0] == "HEALTHY"


async def test_damaged_state_ends_the_service(node: Node) -> None:
    """A node that cannot know what to trust does not start."""
    async with node.up():
        await node.apply(node.publisher.offer(1, site()))
    (node.folder / "config" / "state.json").write_bytes(b"{}")

    with pytest.raises(IntegrityError, match=r"config\.state_corrupt"):
        async with node.up():
            pass


async def test_defect_of_ours_is_a_nack_and_not_an_end(node: Node) -> None:
    """One configuration that trips over a defect must not take the node down."""

    def stumble(_: Configuration) -> Nack | None:
        raise ZeroDivisionError

    async with node.up():
        node.plant.sickness = stumble
        assert outcome(await node.apply(node.publisher.offer(1, site()))) == ("ROLLED_BACK", "INTERNAL")
