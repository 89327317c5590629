"""A node of a simulation: the real Applier over a disk that forgets, a real NodeSession in a thin shell as in
tunnel/client.py and data_plane/link/session.py, and a plant in which revisions behave as they were made to."""

import asyncio
from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING, Any

from data_plane.link.applier import Applier, ApplySettings, NodeScope
from data_plane.link.apply_machine import ApplyMachine, Deadlines
from data_plane.link.config_store import ConfigStore
from data_plane.link.interfaces import Configuration
from data_plane.link.nacks import refusal
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import NotFoundError, UnavailableError
from faos_core.kinds import BY_KIND
from tests.sim.memory_disk import MemoryDisk, MemoryFiles
from tests.sim.network import Connection
from tests.sim.publishing import CEILING, NEWER_KIND, TENANT, Behaviour, ModelTrust
from tests.sim.virtual_loop import OWNER, Owner, VirtualClock
from tunnel import session
from tunnel.backoff import Backoff
from tunnel.errors import BLOB_UNKNOWN, CONTROL_PLANE_UNREACHABLE

if TYPE_CHECKING:
    from tests.sim.world import World

TICK_S = 1.0
DIAL_TIMEOUT_S = 5.0
SOAK_S = 3.0
BLOB_S = 3.0  # at most, besides the network's delay
DEADLINES = Deadlines(
    verifying_s=20.0,
    staging_s=5.0,
    activating_s=30.0,
    soaking_s=8.0,
    promoting_s=5.0,
    rolling_back_s=30.0,
    stuck_s=5.0,
    restore_first_s=1.0,
    restore_last_s=20.0,
)
SETTINGS = ApplySettings(soak_s=SOAK_S, poll_s=0.5, deadlines=DEADLINES)


class Node:
    """One machine at a site. Its disk and its enrolment outlive `Life`s."""

    def __init__(self, world: "World", number: int, rng: Random) -> None:
        self.world = world
        self.number = number
        self.rng = rng
        self.region = rng.choice(("north", "south"))
        self.kinds = [kind for kind in BY_KIND if not (kind == NEWER_KIND and world.old_nodes)]
        self.files = MemoryFiles()
        self.clock = VirtualClock(world.loop)
        self.broken_until_s = 0.0  # until then nothing can be activated here
        self.flaky: dict[int, int] = {}  # failures left, by revision
        self.starts = 0
        self.life: Life | None = None
        self.boot()

    def boot(self) -> None:
        """Start the process, unless it runs."""
        if self.life is None:
            self.starts += 1
            self.life = Life(self)
            self.life.begin()

    def kill(self, *, power: bool) -> None:
        """The process ends at once; with the power, what was not durable goes as well. It comes back a little later."""
        if self.life is None:
            return
        self.world.say(self.number, "power cut" if power else "killed")
        life, self.life = self.life, None
        life.die()
        if power:
            self.files.cut_power(self.rng)
        self.world.judge.died(self, life)
        self.world.loop.after(self.rng.uniform(0.2, 5.0), self.boot)


class Life:
    """One start of the node's process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.disk = MemoryDisk(node.files)
        self.store = ConfigStore(node.files.path("config"), disk=self.disk)  # type: ignore[arg-type]  # a path in memory
        self.unread = self.store.state  # what it is before the disk was read
        self.plant = Plant(node)
        self.link: Link | None = None
        self.backoff = Backoff(node.rng)
        self.cut_is_power = False
        self.owner = Owner(self._cut)
        self.applier = Applier(
            store=self.store,
            trust=ModelTrust(node.clock),  # type: ignore[arg-type]  # has the one method
            activation=self.plant,
            health=self.plant.health,
            blobs=self,
            ceiling=CEILING,
            scope=NodeScope(TENANT, {"region": node.region}),
            clock=node.clock,
            settings=SETTINGS,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def machine(self) -> ApplyMachine:
        return self.applier._machine  # read by the judge, never touched

    def begin(self) -> None:
        context = copy_context()
        context.run(OWNER.set, self.owner)
        self._context = context
        self._task = self.node.world.loop.create_task(self._run(), context=context)
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.applier.run())
            await self.applier.ready.wait()
            self.node.world.judge.ready(self.node)
            self.dial()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A process that cannot read its disk ends, and its supervisor starts it again."""
        if self.owner.is_dead:
            return
        if self.disk.faults and _is_oserror(task.exception()):
            self.node.kill(power=False)
        else:
            self.node.world.judge.fail(f"node {self.node.number}: configuration ended: {task.exception()!r}")

    def _cut(self) -> None:
        self.node.kill(power=self.cut_is_power)

    def die(self) -> None:
        self.owner.die()
        self.disk.is_dead = True
        if self.link:
            self.link.vanish()
        assert self._task is not None
        self._task.cancel()

    def start_task(self, coroutine: Any) -> "asyncio.Task[None]":
        return self.node.world.loop.create_task(coroutine, context=self._context)

    # ---- the tunnel client

    def dial(self) -> None:
        if self.owner.is_dead:
            return
        world = self.node.world
        if not world.cloud.is_up:
            world.loop.after(world.network.delay_s(), self.dial_later, 0.0, 0.0)
        elif world.network.is_partitioned(self.node.number):
            world.loop.after(DIAL_TIMEOUT_S, self.dial_later, DIAL_TIMEOUT_S, 0.0)
        else:
            world.loop.after(world.network.delay_s(), self._connected, world.loop.time())

    def _connected(self, began_s: float) -> None:
        if self.owner.is_dead:
            return
        world = self.node.world
        if not world.cloud.is_up:
            self.dial_later(0.0, 0.0)
            return
        connection = Connection(world.network, self.node.number)
        self.link = Link(self, connection, began_s)
        world.cloud.accept(self.node.number, connection)
        self.link.open()

    def dial_later(self, lasted_s: float, retry_after_s: float) -> None:
        delay_s = self.backoff.next_delay_s(lasted_s=lasted_s, retry_after_s=retry_after_s)
        self.node.world.loop.after(delay_s, self.dial)

    async def get(self, sha256: bytes) -> bytes:
        """Implements BlobSource, as tunnel.client.BlobFetcher does over the link that is up."""
        world, link = self.node.world, self.link
        if link is None:
            raise UnavailableError(CONTROL_PLANE_UNREACHABLE, address="", details="no session is up", timeout_s=0)
        await asyncio.sleep(world.network.arrives_in_s(self.node.number) + self.node.rng.uniform(0.0, BLOB_S))
        standing = world.cloud.publisher.standing
        asked = world.cloud.is_up and not link.connection.is_cut
        body = standing.blobs.get(sha256) if standing else None
        await asyncio.sleep(world.network.arrives_in_s(self.node.number))
        if not asked or not world.cloud.is_up or link.connection.is_cut or self.link is not link:
            raise UnavailableError(CONTROL_PLANE_UNREACHABLE, address="", details="cut", timeout_s=0)
        if body is None:
            raise NotFoundError(BLOB_UNKNOWN, digest=sha256.hex())
        return body


def _is_oserror(error: BaseException | None) -> bool:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return isinstance(error, OSError)


class Link:
    """One session on the node's side."""

    def __init__(self, life: Life, connection: Connection, began_s: float) -> None:
        self.life = life
        self.connection = connection
        self.end = connection.node_end
        self.began_s = began_s
        self.machine = session.NodeSession(life.node.world.loop.time())
        self.end.deliver = self._deliver
        self.end.lost = lambda: self._over(0.0)
        self._report_task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._perform(self.machine.open())
        self._report_task = self.life.start_task(self._report())
        self._loop.after(TICK_S * self.life.node.rng.random(), self._tick)

    @property
    def _loop(self) -> Any:
        return self.life.node.world.loop

    def vanish(self) -> None:
        """With its process: killed, its kernel closes the connection; without power nobody does."""
        if self.life.node.rng.random() < 0.7:
            self.end.close()
        self.end.vanish()
        if self._report_task:
            self._report_task.cancel()

    def _over(self, retry_after_s: float) -> None:
        if self.life.link is not self:
            return
        self.end.close()
        self.machine.phase = session.Phase.CLOSED
        self.life.link = None
        if self._report_task:
            self._report_task.cancel()
        self.life.dial_later(self._loop.time() - self.began_s, retry_after_s)

    def _tick(self) -> None:
        if self.life.link is self and not self.life.owner.is_dead:
            self._perform(self.machine.tick(self._loop.time()))
            self._loop.after(TICK_S, self._tick)

    async def _report(self) -> None:
        while True:
            self._perform(self.machine.report(await self.life.applier.statuses.take()))

    def _deliver(self, data: bytes) -> None:
        self._perform(self.machine.receive(tunnel.CloudFrame.FromString(data), self._loop.time()))

    def _perform(self, effects: Any) -> None:
        for effect in effects:
            match effect:
                case session.SendHello():
                    self._send(tunnel.NodeFrame(hello=self._hello()))
                case session.SendStatus(status):
                    self.life.node.world.judge.sending(self.life.node, status)
                    self._send(tunnel.NodeFrame(apply_status=status))
                case session.SendHeartbeat(sequence):
                    beat = tunnel.NodeHeartbeat(sequence=sequence, config=self.life.applier.facts())
                    self._send(tunnel.NodeFrame(heartbeat=beat))
                case session.Deliver(offer):
                    self.life.start_task(self.life.applier.offer(offer))
                case session.Close(_, retry_after_s):
                    self._over(retry_after_s)

    def _hello(self) -> tunnel.Hello:
        applier = self.life.applier
        applier.statuses.clear()
        facts = applier.facts()
        self.life.node.world.judge.facts(self.life.node, facts)
        return tunnel.Hello(
            protocol=session.PROTOCOL, kinds=self.life.node.kinds, known_sha256=applier.known_sha256(), config=facts
        )

    def _send(self, frame: tunnel.NodeFrame) -> None:
        self.end.send(frame.SerializeToString())


class Plant:
    """Implements Activation and HealthProbe."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._active = Configuration()
        self.since_s = 0.0
        self._sick_at_s: float | None = None
        self.tried = b""  # manifest whose activation was begun last, other than last known good's

    def running(self) -> Configuration:
        return self._active

    async def activate(self, configuration: Configuration) -> None:
        node = self._node
        revision = node.world.cloud.publisher.revisions.get(configuration.revision)
        behaviour = revision.behaviour if revision else Behaviour.GOOD
        node.world.judge.activating(node, configuration)
        if behaviour is Behaviour.DEADLY:
            node.world.loop.after(node.rng.uniform(0.0, 0.9 * SOAK_S), self._kill, node.life)
        await asyncio.sleep(node.rng.uniform(6.0, 20.0) if behaviour is Behaviour.SLOW else node.rng.uniform(0.01, 1.5))
        try:
            self._misbehave(configuration, behaviour)
        except Exception:
            self.tried = b""  # the process has outlived it: what kills it from here on was not the trial
            raise
        if behaviour is Behaviour.HANGS:
            await asyncio.sleep(1e9)
        self._active, self.since_s = configuration, node.clock.monotonic_s()
        sick = behaviour is Behaviour.SICK
        self._sick_at_s = self.since_s + node.rng.uniform(0.0, 0.9 * SOAK_S) if sick else None
        node.world.judge.activated(node, configuration)

    def _kill(self, life: Life) -> None:
        if self._node.life is life:
            self._node.kill(power=False)

    def _misbehave(self, configuration: Configuration, behaviour: Behaviour) -> None:
        node, number = self._node, configuration.revision
        if node.world.loop.time() < node.broken_until_s:
            node.world.judge.disturbed(node)
            raise OSError("the plant is broken")
        if behaviour is Behaviour.FAILS:
            raise refusal(tunnel.NACK_CODE_MODEL_LOAD_FAILED)
        if behaviour is Behaviour.BREAKS:
            raise RuntimeError("a defect")
        if behaviour is Behaviour.FLAKY and node.flaky.setdefault(number, 1 + number % 2):
            node.flaky[number] -= 1
            raise OSError("no space left")

    def health(self) -> tunnel.Nack | None:
        node, ill = self._node, self._sick_at_s is not None and self._node.clock.monotonic_s() >= self._sick_at_s
        if ill and node.rng.random() < 0.3:  # and leaves a mess behind
            node.broken_until_s = max(node.broken_until_s, node.world.loop.time() + node.rng.uniform(1.0, 10.0))
        return refusal(tunnel.NACK_CODE_TOOL_SERVER_FAILED).nack if ill else None
