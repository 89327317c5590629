"""The control plane of a simulation: real CloudSessions, a thin shell as in tunnel/server.py around each, and a
durable record as control_plane/fleet/service.py keeps it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.sim.network import Connection
from tests.sim.publishing import Publisher
from tunnel import session

if TYPE_CHECKING:
    from tests.sim.world import World

HEARTBEAT_S = 5.0
PREEMPT_S = 12.0  # as of the node's own patience, stuck_s, less than the product's
TICK_S = 1.0
DATABASE_S = 0.01  # mean time of a transaction; of one in twenty a second


@dataclass(slots=True)
class NodeRecord:
    """What the database says of one node: rows `nodes` and `node_config_status`."""

    attempted: int = 0
    running: int = 0
    healthy: int = 0
    revision: int = 0  # that `state` is about
    state: int = 0
    code: int = 0
    history: dict[int, tuple[int, int]] = field(default_factory=dict)  # state and code of the NACK by revision

    def refused(self) -> frozenset[int]:
        """As FleetService.greeted selects them."""
        return frozenset(
            revision
            for revision, (state, code) in self.history.items()
            if state in session.REFUSALS and code not in session.TRANSIENT
        )

    def learn(self, config: tunnel.ConfigFacts) -> None:
        self.attempted = config.attempted_revision
        self.running = config.running_revision
        self.healthy = config.healthy_revision


class Cloud:
    """One control plane; `crash` and `start` it at any moment. The record survives."""

    def __init__(self, world: "World", publisher: Publisher, rng: Random, node_count: int) -> None:
        self.world = world
        self.publisher = publisher
        self.rng = rng
        self.record = [NodeRecord() for _ in range(node_count)]
        self.live: dict[int, CloudStream] = {}
        self.is_up = True
        self.starts = 1
        self._written_s = 0.0  # when the last transaction asked for is durable
        self.corrupt: Callable[[tunnel.ConfigOffer], tunnel.ConfigOffer] | None = None

    def crash(self) -> None:
        self.is_up = False
        self.starts += 1
        for stream in self.live.values():
            stream.vanish()
        self.live = {}

    def start(self) -> None:
        self.is_up = True
        self.world.loop.after(TICK_S * self.rng.random(), self._tick, self.starts)

    def _tick(self, start: int) -> None:
        if self.is_up and start == self.starts:
            for node, stream in list(self.live.items()):
                stream.perform(stream.machine.tick(self.world.loop.time()))
                self.world.judge.ticked(node, stream)
            self.world.loop.after(TICK_S, self._tick, start)

    def accept(self, node: int, connection: Connection) -> None:
        stream = CloudStream(self, node, connection)
        if before := self.live.get(node):
            before.close()
        self.live[node] = stream

    def targets_changed(self) -> None:
        """As TunnelServer.targets_changed: the live ones, one after the other."""
        for node, stream in list(self.live.items()):
            stream.perform(stream.machine.desire(self.target(node), self.world.loop.time()))

    def drain(self) -> None:
        for stream in list(self.live.values()):
            stream.write(tunnel.CloudFrame(drain=tunnel.Drain(retry_after_seconds=1)))
            stream.close()

    def target(self, node: int) -> session.Target | None:
        revision = self.publisher.standing
        if revision is None:
            return None
        region = self.world.nodes[node].region
        return session.Target(revision.number, revision.sha256, revision.kinds_by_region[region])

    def look_up(self, then: Callable[[], None]) -> None:
        """What the database says some time later, unless the control plane crashes before."""
        start = self.starts
        took_s = self.rng.expovariate(1 / (1.0 if self.rng.random() < 0.05 else DATABASE_S))
        self.world.loop.after(took_s, lambda: then() if self.is_up and start == self.starts else None)

    def transaction(self, then: Callable[[], None]) -> None:
        """Durable some time later, after those before it, unless the control plane crashes before."""
        start = self.starts
        now_s = self.world.loop.time()
        took_s = self.rng.expovariate(1 / (1.0 if self.rng.random() < 0.05 else DATABASE_S))
        self._written_s = max(self._written_s, now_s + took_s)

        def commit() -> None:
            if self.is_up and start == self.starts:
                then()

        self.world.loop.at(self._written_s, commit)


class CloudStream:
    """One session on the control plane's side. Frames are taken one at a time; ticks and new targets come between."""

    def __init__(self, cloud: Cloud, node: int, connection: Connection) -> None:
        self.cloud = cloud
        self.node = node
        self.end = connection.cloud_end
        self.connection = connection
        self.machine = session.CloudSession(
            cloud.rng.randbytes(8), HEARTBEAT_S, cloud.world.loop.time(), preempt_s=PREEMPT_S
        )
        self._inbox: deque[tunnel.NodeFrame] = deque()
        self._is_busy = False
        self.offered = b""  # nonce of the offer that was sent last
        self.offered_revision = 0
        self.offers: dict[bytes, int] = {}  # revision by nonce: sent, and not heard the end of
        self.making: set[bytes] = set()  # nonces of offers that are about to be sent
        self.waits_since_s: float | None = None  # when the node was last heard about it; None once it has ended
        self.end.deliver = self._deliver
        self.end.lost = self._left

    @property
    def is_open(self) -> bool:
        return self.machine.phase is session.Phase.OPEN

    def close(self) -> None:
        self.machine.phase = session.Phase.CLOSED
        self.end.close()
        self._left()

    def vanish(self) -> None:
        """With its process: the kernel of a crashed process resets the connection, that of a crashed machine does
        not."""
        self.machine.phase = session.Phase.CLOSED
        if self.cloud.rng.random() < 0.7:
            self.end.close()
        self.end.vanish()

    def _left(self) -> None:
        self.machine.phase = session.Phase.CLOSED
        if self.cloud.live.get(self.node) is self:
            del self.cloud.live[self.node]

    def _deliver(self, data: bytes) -> None:
        self._inbox.append(tunnel.NodeFrame.FromString(data))
        self._take()

    def _take(self) -> None:
        if self._is_busy or not self._inbox or self.machine.phase is session.Phase.CLOSED:
            return
        self._is_busy = True
        frame = self._inbox.popleft()
        if frame.WhichOneof("frame") == "hello" and self.machine.phase is session.Phase.GREETING:
            self.cloud.transaction(lambda: self._greeted(frame))
        else:
            self._receive(frame)

    def _greeted(self, frame: tunnel.NodeFrame) -> None:
        record = self.cloud.record[self.node]
        record.learn(frame.hello.config)
        self.machine.refused = record.refused()
        self.machine.target = self.cloud.target(self.node)
        self._receive(frame)

    def _receive(self, frame: tunnel.NodeFrame) -> None:
        self._note(frame)
        effects = self.machine.receive(frame, self.cloud.world.loop.time())
        self.cloud.world.judge.heard(self.node, self, frame, effects)
        self.perform(effects, self._taken)

    def _note(self, frame: tunnel.NodeFrame) -> None:
        """For the judge alone."""
        if frame.HasField("hello"):
            self.cloud.world.judge.told(self.node, frame.hello.config)
        if frame.HasField("heartbeat"):
            self.cloud.world.judge.told(self.node, frame.heartbeat.config)
        status = frame.apply_status
        if frame.HasField("apply_status") and status.nonce == self.offered:
            self.cloud.world.judge.told(self.node, status.config)
            self.waits_since_s = None if status.state in session.TERMINAL else self.cloud.world.loop.time()

    def _taken(self) -> None:
        self._is_busy = False
        self._take()

    def perform(self, effects: list[session.CloudEffect], then: Callable[[], None] | None = None) -> None:
        """In order; a transaction is waited for."""
        for index, effect in enumerate(effects):
            match effect:
                case session.Record() | session.HeldBack() | session.Progress():
                    rest = effects[index + 1 :]
                    shown = not isinstance(effect, session.Progress) and self.machine.shows(effect)
                    self.cloud.transaction(lambda e=effect, s=shown, r=rest: self._recorded(e, s, r, then))  # type: ignore[misc]  # bound now
                    return
                case session.Greet():
                    self.write(tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=round(HEARTBEAT_S))))
                case session.Offer():
                    rest = effects[index + 1 :]
                    self.making.add(effect.nonce)
                    self.cloud.world.judge.deciding(self.node, self, effect)
                    self.cloud.look_up(lambda e=effect, r=rest: self._looked_up(e, r, then))  # type: ignore[misc]  # bound now
                    return
                case session.Beat(sequence):
                    self.write(tunnel.CloudFrame(heartbeat=tunnel.CloudHeartbeat(sequence=sequence)))
                case session.Close():
                    self.close()
        if then:
            then()

    def _looked_up(
        self, effect: session.Offer, rest: list[session.CloudEffect], then: Callable[[], None] | None
    ) -> None:
        self.making.discard(effect.nonce)
        self._offer(effect)
        self.perform(rest, then)

    def _recorded(
        self,
        effect: session.Record | session.HeldBack | session.Progress,
        shown: bool,
        rest: list[session.CloudEffect],
        then: Callable[[], None] | None,
    ) -> None:
        if isinstance(effect, session.Record):
            self._report(effect.status, shown=shown)
        elif isinstance(effect, session.Progress):
            self.cloud.record[self.node].learn(effect.heartbeat.config)
        elif shown:
            record = self.cloud.record[self.node]
            record.revision, record.state = effect.target.revision, tunnel.APPLY_STATE_REJECTED
            record.code = tunnel.NACK_CODE_KIND_UNKNOWN
            self.cloud.world.judge.held_back(self.node, effect.kinds)
        self.perform(rest, then)

    def _report(self, status: tunnel.ApplyStatus, *, shown: bool) -> None:
        record = self.cloud.record[self.node]
        self.cloud.world.judge.recording(self.node, record, status)
        record.learn(status.config)
        if shown:
            record.revision, record.state, record.code = status.revision, status.state, status.nack.code
        record.history[status.revision] = (status.state, status.nack.code)

    def _offer(self, effect: session.Offer) -> None:
        """As tunnel/server.py: nothing, when another revision stands by now."""
        cloud = self.cloud
        if not self.end.is_open:
            return
        revision = cloud.publisher.standing
        assert revision is not None
        if revision.sha256 != effect.target.manifest_sha256:
            self.perform(self.machine.withdraw(effect.nonce, cloud.target(self.node), cloud.world.loop.time()))
            cloud.world.judge.withdrawn(self.node, self)
            return
        known = frozenset(self.machine.hello.known_sha256)
        offer = cloud.publisher.offer(revision, effect.nonce, known, cloud.world.nodes[self.node].clock)
        if cloud.corrupt:
            offer = cloud.corrupt(offer)
            cloud.corrupt = None
            cloud.world.judge.tampered |= {(self.node, effect.target.revision), (self.node, offer.revision)}
        cloud.world.judge.offering(self.node, self, effect, revision)
        self.write(tunnel.CloudFrame(config_offer=offer))

    def write(self, frame: tunnel.CloudFrame) -> None:
        self.end.send(frame.SerializeToString())
