"""What must hold after every event, and what must have come of it in the end. Source: DESIGN sections 5 and 12."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_plane.link.applier import ApplySettings
from data_plane.link.apply_machine import PREEMPTIBLE, Phase
from data_plane.link.config_store import Pointer, StoredState, Trial, decode_state
from data_plane.link.interfaces import Configuration
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import FaosError
from tests.sim.publishing import CAUSES, RUNS, Behaviour, Revision
from tunnel import session

if TYPE_CHECKING:
    from tests.sim.cloud_model import CloudStream, NodeRecord
    from tests.sim.node_model import Life, Node
    from tests.sim.world import World

Facts = tuple[int, int, int]  # running, healthy, high-water
MOST_DEATHS = ApplySettings().most_deaths
SENDING_S = 5.0  # from the decision to offer to the offer
SLACK_S = 15.0  # slow transactions of a slow tick


@dataclass(slots=True)
class _Known:
    """What was true of one node, over all of its lives."""

    life: "Life | None" = None
    state: StoredState | None = None
    active: Configuration | None = None
    high_water: Pointer = field(default_factory=Pointer)
    healthy: Pointer = field(default_factory=Pointer)
    quarantined: set[bytes] = field(default_factory=set)
    deaths: dict[bytes, int] = field(default_factory=dict)  # of the process while it tried this manifest
    trials: dict[bytes, int] = field(default_factory=dict)  # deaths while the disk said that it was being tried
    soaked: bytes = b""  # manifest that had run for as long as a soak when the last life ended
    disturbances: int = 0  # of the plant, in this life
    were_true: set[Facts] = field(default_factory=set)  # in this life


class Judge:
    """Collects violations. Its methods are called where something becomes visible, `watch` after every event."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.violations: list[str] = []
        self.tampered: set[tuple[int, int]] = set()  # (node, revision) of which a bad offer was sent
        self._known: list[_Known] = []
        self._told: list[set[bytes]] = []  # manifests that a node said are in quarantine

    def begin(self, node_count: int) -> None:
        self._known = [_Known() for _ in range(node_count)]
        self._told = [set() for _ in range(node_count)]

    def fail(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)
            self.world.say(-1, f"VIOLATION: {what}")

    # ---- the node

    def working(self, node: "Node", life: "Life") -> None:
        """A node that is stuck with one offer lets the next one in; one at rest tries nothing."""
        machine, now_s = life.machine, self.world.loop.time()
        stuck_s = now_s - machine._began_s - machine._deadlines.stuck_s
        if machine._queued and machine.phase in PREEMPTIBLE and stuck_s > SLACK_S:
            self.fail(f"node {node.number}: is stuck with one offer while another waits")
        trial = life.store.state.trial
        if machine.phase is Phase.IDLE and trial not in (Trial(), life.store._deaths) and not life.disk.faults:
            self.fail(f"node {node.number}: an attempt that has ended would count as a death")

    def watch(self) -> None:
        for node, known in zip(self.world.nodes, self._known, strict=False):
            if (life := node.life) is not None:
                self.working(node, life)
                state, active = life.store.state, life.plant._active
                if state is not known.state or active is not known.active:
                    self._changed(node, known, life, state, active)

    def _changed(self, node: "Node", known: _Known, life: "Life", state: StoredState, active: Configuration) -> None:
        if life is not known.life:
            if state == StoredState() and not life.disk.files.path("config", "state.json").exists():
                return  # not opened yet
            if state is life.unread:
                return
            self._restarted(node, known, life)
        if state is not known.state:
            self._stored(node, known, state, active)
        known.state, known.active = state, active
        known.were_true.add((active.revision, state.healthy.revision, state.high_water.revision))

    def _restarted(self, node: "Node", known: _Known, life: "Life") -> None:
        known.life, known.were_true, known.disturbances = life, set(), 0
        if not known.healthy.revision:
            return
        try:
            kept = life.store.last_known_good({"region": node.region})
        except FaosError as error:
            self.fail(f"node {node.number}: last known good is lost: {error}")
        else:
            self._check_content(node, kept)

    def _stored(self, node: "Node", known: _Known, state: StoredState, active: Configuration) -> None:
        me = f"node {node.number}"
        if state.high_water.revision < known.high_water.revision:
            self.fail(f"{me}: the high-water mark fell from {known.high_water.revision} to {state.high_water.revision}")
        if lost := known.quarantined - set(state.quarantined):
            self.fail(f"{me}: {len(lost)} manifest(s) left quarantine")
        if state.healthy != known.healthy:
            self._promoted(node, known, state.healthy, active)
        for pointer in (state.attempted, state.healthy, state.high_water):
            revision = self.world.publisher.by_sha256.get(pointer.manifest_sha256)
            if pointer.revision and (revision is None or revision.number != pointer.revision):
                self.fail(f"{me}: revision {pointer.revision} was stored, and nobody signed it")
        if node.life and node.life.store._is_settled:  # what a failed write left is not promised to anybody
            known.high_water, known.healthy = state.high_water, state.healthy
            known.quarantined = set(state.quarantined)

    def _promoted(self, node: "Node", known: _Known, healthy: Pointer, active: Configuration) -> None:
        me = f"node {node.number}"
        if healthy.revision < known.healthy.revision:
            self.fail(f"{me}: last known good fell from {known.healthy.revision} to {healthy.revision}")
        revision = self.world.publisher.by_sha256.get(healthy.manifest_sha256)
        if revision and revision.behaviour not in RUNS:
            self.fail(f"{me}: revision {revision.number}, which is {revision.behaviour}, became last known good")
        assert node.life is not None
        if active.manifest_sha256 != healthy.manifest_sha256:
            if healthy.manifest_sha256 != known.soaked:
                self.fail(f"{me}: revision {healthy.revision} became last known good and does not run")
        elif self.world.loop.time() - node.life.plant.since_s < self.world.soak_s - 1e-6:
            self.fail(f"{me}: revision {healthy.revision} became last known good before its soak was over")

    def activating(self, node: "Node", configuration: Configuration) -> None:
        """About to be: the last moment before it can kill the process."""
        life, digest = node.life, configuration.manifest_sha256
        assert life is not None
        if not digest or digest == life.store.state.healthy.manifest_sha256:
            return
        life.plant.tried = digest
        if self._known[node.number].deaths.get(digest, 0) >= MOST_DEATHS:
            self.fail(f"node {node.number}: revision {configuration.revision} is tried, and has killed it twice")

    def activated(self, node: "Node", configuration: Configuration) -> None:
        before = self._known[node.number].active
        self.world.say(node.number, f"runs {configuration.revision}")
        if configuration.revision:
            self._check_content(node, configuration)
        known = self._known[node.number]
        if known.life is node.life and configuration.manifest_sha256 in known.quarantined:
            self.fail(f"node {node.number}: revision {configuration.revision} runs though it is in quarantine")
        assert node.life is not None
        if configuration.revision > node.life.store.state.high_water.revision:
            self.fail(f"node {node.number}: revision {configuration.revision} runs above the high-water mark")
        if known.life is node.life and before and before.revision > configuration.revision:
            was = self.world.publisher.revisions[before.revision].behaviour
            excused = was in (Behaviour.SICK, Behaviour.SLOW) or known.disturbances or node.life.disk.faults
            if not excused:
                self.fail(f"node {node.number}: rolled back from {before.revision}, which is {was}, without a cause")

    def _check_content(self, node: "Node", configuration: Configuration) -> None:
        """Exactly what was signed for this node, and allowed by its site."""
        me, number = f"node {node.number}", configuration.revision
        revision = self.world.publisher.by_sha256.get(configuration.manifest_sha256)
        if revision is None or revision.number != number:
            self.fail(f"{me}: revision {number} runs, and nobody signed it")
            return
        if revision.behaviour is Behaviour.CEILING:
            self.fail(f"{me}: revision {number} runs above the site's ceiling")
        tokens = configuration.models["llm"].context_tokens if "llm" in configuration.models else 0
        if configuration.names() != revision.names_by_region[node.region] or tokens != 1000 + number:
            self.fail(f"{me}: revision {number} runs with other content than was signed")

    def died(self, node: "Node", life: "Life") -> None:
        """The write of what had soaked may have come through."""
        known, plant = self._known[node.number], life.plant
        # A write that the end cut off counts as soon as it is on the disk.
        trial = life.store.state.trial.manifest_sha256 or _stored_trial(node)
        if life.machine.phase in (Phase.ACTIVATING, Phase.SOAKING) and plant.tried:
            known.deaths[plant.tried] = known.deaths.get(plant.tried, 0) + 1
        if trial:
            known.trials[trial] = known.trials.get(trial, 0) + 1
        has_soaked = self.world.loop.time() - plant.since_s >= self.world.soak_s - 1e-6
        known.soaked = plant.running().manifest_sha256 if has_soaked else known.soaked
        known.life = known.active = None

    def ready(self, node: "Node") -> None:
        self.world.say(node.number, f"starts {node.starts}")

    def disturbed(self, node: "Node") -> None:
        self._known[node.number].disturbances += 1

    def facts(self, node: "Node", facts: tunnel.ConfigFacts) -> None:
        """Said in a Hello: must be true at this moment."""
        life = node.life
        assert life is not None
        state = life.store.state
        truth = (life.plant.running().revision, state.healthy.revision, state.high_water.revision)
        self.world.say(node.number, f"hello {truth}")
        if said(facts) != truth:
            self.fail(f"node {node.number}: says {said(facts)} in its Hello and is {truth}")
        if set(facts.quarantined_manifest_sha256) != set(state.quarantined):
            self.fail(f"node {node.number}: lies about its quarantine")

    def sending(self, node: "Node", status: tunnel.ApplyStatus) -> None:
        """Said with a status: must have been true in this life, and fit the state."""
        me, state = f"node {node.number}", tunnel.ApplyState.Name(status.state).removeprefix("APPLY_STATE_")
        code = tunnel.NackCode.Name(status.nack.code).removeprefix("NACK_CODE_") if status.HasField("nack") else ""
        self.world.say(node.number, f"says {status.revision} {state} {code}")
        facts, known = said(status.config), self._known[node.number]
        if known.life is node.life and facts not in known.were_true:
            self.watch()
            if facts not in known.were_true:
                self.fail(f"{me}: says {facts} with {state}, and it never was so")
        if state == "HEALTHY" and not facts[0] == facts[1] == status.revision:
            self.fail(f"{me}: says that {status.revision} is healthy with {facts}")
        life = node.life
        fell_ill = status.state == tunnel.APPLY_STATE_ROLLED_BACK and code == "TOOL_SERVER_FAILED"
        if fell_ill and life and not life.disk.faults:
            ill = self.world.publisher.revisions[status.revision].sha256
            if ill not in life.store.state.quarantined:
                self.fail(f"{me}: {status.revision} fell ill, and is not in quarantine")
        lied_to = (node.number, status.revision) in self.tampered or code == "ROLLBACK"
        if status.state in session.REFUSALS and facts[0] == facts[1] == status.revision and not lied_to:
            self.fail(f"{me}: refuses {status.revision}, which is its last known good")

    # ---- the control plane

    def deciding(self, node: int, stream: "CloudStream", effect: session.Offer) -> None:
        """To offer; the offer itself is made and sent a little later."""
        waits, is_newer = stream.waits_since_s, effect.target.revision > stream.offered_revision
        patience_s = stream.machine.preempt_s if is_newer else session.OFFER_SILENCE_S
        now_s = self.world.loop.time()
        if waits is not None and now_s - waits < patience_s - SENDING_S:
            self.fail(f"node {node}: a second offer while one is in flight")

    def offering(self, node: int, stream: "CloudStream", effect: session.Offer, revision: Revision) -> None:
        me = f"node {node}"
        self.world.say(node, f"is offered {revision.number} ({revision.behaviour})")
        cloud = self.world.cloud
        if cloud.live.get(node) is not stream:
            self.fail(f"{me}: an offer on a session that is not the live one")
        if revision.number in cloud.record[node].refused():
            self.fail(f"{me}: revision {revision.number} is parked, and is offered again")
        if revision.sha256 in self._told[node]:
            self.fail(f"{me}: revision {revision.number} is in quarantine, and is offered again")
        if unknown := revision.kinds_by_region[self.world.nodes[node].region] - set(self.world.nodes[node].kinds):
            self.fail(f"{me}: offered kinds {sorted(unknown)}, which it cannot parse")
        stream.waits_since_s, stream.offered = self.world.loop.time(), effect.nonce
        stream.offered_revision = revision.number
        stream.offers = {nonce: each for nonce, each in stream.offers.items() if each != revision.number}
        stream.offers[effect.nonce] = revision.number

    def heard(
        self, node: int, stream: "CloudStream", frame: tunnel.NodeFrame, effects: Sequence[session.CloudEffect]
    ) -> None:
        """What a node says of an offer is recorded, however many newer ones were sent since."""
        status = frame.apply_status
        if not frame.HasField("apply_status") or status.nonce not in stream.offers:
            return
        if not any(isinstance(effect, session.Record) for effect in effects):
            self.fail(f"node {node}: what it says of {status.revision} is not recorded")
        if status.state in session.TERMINAL:
            del stream.offers[status.nonce]

    def withdrawn(self, node: int, stream: "CloudStream") -> None:
        waits_for = stream.machine._in_flight
        if waits_for and waits_for.nonce not in {*stream.offers, *stream.making}:
            self.fail(f"node {node}: an offer is waited for that was never sent")

    def ticked(self, node: int, stream: "CloudStream") -> None:
        """The control plane has just looked at its clock for this stream, and performed what came of it."""
        standing, now_s = self.world.publisher.standing, self.world.loop.time()
        if standing is None or stream.waits_since_s is None or standing.number <= stream.offered_revision:
            return
        may_wait_s = stream.machine.preempt_s + SLACK_S
        is_held = standing.kinds_by_region[self.world.nodes[node].region] - set(self.world.nodes[node].kinds)
        if now_s - max(stream.waits_since_s, standing.since_s) > may_wait_s and not is_held:
            what = f"revision {standing.number} waits behind {stream.offered_revision}, which stands still"
            self.fail(f"node {node}: {what}")

    def recording(self, node: int, record: "NodeRecord", status: tunnel.ApplyStatus) -> None:
        """About to become durable."""
        me, number = f"node {node}", status.revision
        parks = status.state in session.REFUSALS and status.nack.code not in session.TRANSIENT
        if number in record.refused() and not parks and (node, number) not in self.tampered:
            self.fail(f"{me}: the recorded refusal of {number} is overwritten")
        known = self._known[node]
        if status.state == tunnel.APPLY_STATE_HEALTHY and (
            known.state is None or known.state.healthy.revision < number
        ):
            self.fail(f"{me}: {number} is recorded as healthy and never was")
        if parks and not self._has_cause(node, status):
            code = tunnel.NackCode.Name(status.nack.code)
            self.fail(f"{me}: {number} is refused for {code} without a cause")

    def _has_cause(self, node: int, status: tunnel.ApplyStatus) -> bool:
        revision = self.world.publisher.revisions.get(status.revision)
        if (node, status.revision) in self.tampered or revision is None:
            return True
        if status.nack.code in CAUSES.get(revision.behaviour, ()):
            return True
        if status.nack.code == tunnel.NACK_CODE_CRASHED:
            return self._has_killed(node, revision)
        superseded = revision is not self.world.publisher.standing
        return superseded and status.nack.code == tunnel.NACK_CODE_BLOB_MISSING

    def _has_killed(self, node: int, revision: Revision) -> bool:
        """Or died while it was tried, which nobody can tell apart."""
        return self._known[node].trials.get(revision.sha256, 0) >= MOST_DEATHS

    def told(self, node: int, config: tunnel.ConfigFacts) -> None:
        self._told[node].update(config.quarantined_manifest_sha256)

    def held_back(self, node: int, kinds: frozenset[int]) -> None:
        if kinds <= set(self.world.nodes[node].kinds):
            self.fail(f"node {node}: held back for kinds that it knows")

    # ---- the end

    def unsettled(self) -> Iterator[str]:
        """Why the fleet is not at rest where it should be; nothing once it is."""
        for node in self.world.nodes:
            if reason := self._unsettled(node):
                yield f"node {node.number}: {reason}"

    def _unsettled(self, node: "Node") -> str:
        cloud, target = self.world.cloud, self.world.publisher.standing
        life, stream, record = node.life, cloud.live.get(node.number), cloud.record[node.number]
        if (
            life is None
            or stream is None
            or not stream.is_open
            or life.link is None
            or life.link.end.peer is not stream.end
        ):
            return "no session is up"
        if life.machine.phase is not Phase.IDLE:
            return f"its machine is {life.machine.phase}"
        state, running = life.store.state, life.plant.running().revision
        if running != state.healthy.revision:
            return f"last known good is {state.healthy.revision}, and {running} runs"
        if target is None:
            return ""
        if why := self._not_there(node, target, running):
            return why
        if (record.running, record.healthy) != (running, state.healthy.revision):
            recorded = (record.running, record.healthy)
            return f"recorded as running, healthy {recorded}, and is {(running, state.healthy.revision)}"
        return ""

    def _not_there(self, node: "Node", target: Revision, running: int) -> str:
        """Runs the target, or is known for why it does not."""
        record = self.world.cloud.record[node.number]
        if (node.number, target.number) in self.tampered and (record.code or target.number in record.refused()):
            return ""  # the control plane that lies can keep a node from what it should run, and no more
        if running == target.number:
            shown = f"{record.revision} {tunnel.ApplyState.Name(record.state)}"
            is_shown = record.revision == running and record.state == tunnel.APPLY_STATE_HEALTHY
            return "" if is_shown else f"runs {running}, and is shown as {shown}"
        reason = tunnel.NackCode.Name(record.code) if record.revision == target.number and record.code else ""
        if not reason or record.state not in session.REFUSALS:
            shown = f"{record.revision} {tunnel.ApplyState.Name(record.state)}"
            return f"runs {running} instead of {target.number}, and nobody is told why; shown is {shown}"
        held = record.code == tunnel.NACK_CODE_KIND_UNKNOWN and not (
            target.kinds_by_region[node.region] <= set(node.kinds)
        )
        died = record.code == tunnel.NACK_CODE_CRASHED and self._has_killed(node.number, target)
        if target.behaviour in RUNS and not held and not died:
            return f"runs {running} instead of {target.number}, which is {target.behaviour}, for {reason}"
        return ""


def _stored_trial(node: "Node") -> bytes:
    """Manifest whose trial the disk tells of, as the next life will read it; empty for none."""
    path = node.files.path("config", "state.json")
    return decode_state(path.read_bytes()).trial.manifest_sha256 if path.is_file() else b""


def said(facts: tunnel.ConfigFacts) -> Facts:
    return (facts.running_revision, facts.healthy_revision, facts.high_water_revision)
