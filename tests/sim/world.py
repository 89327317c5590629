"""One simulation: what exists, what goes wrong and when, all of it from one seed."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from faos.tunnel.v1.tunnel_pb2 import ConfigOffer
from tests.sim.cloud_model import Cloud
from tests.sim.judge import Judge
from tests.sim.network import Network
from tests.sim.node_model import SOAK_S, Node
from tests.sim.publishing import Behaviour, Publisher, model, revision_of, signed
from tests.sim.virtual_loop import VirtualLoop

CONVERGES_WITHIN_S = 2500.0  # after the last fault: silence about an offer, back-off, retries, deadlines
LOOK_S = 1.0
BEHAVIOURS = [
    (Behaviour.GOOD, 10),
    (Behaviour.SLOW, 2),
    (Behaviour.FLAKY, 2),
    (Behaviour.CEILING, 2),
    (Behaviour.FAILS, 2),
    (Behaviour.BREAKS, 1),
    (Behaviour.HANGS, 1),
    (Behaviour.SICK, 4),
    (Behaviour.DEADLY, 2),
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to. trace_sha256: of every line of the trace, times included."""

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    virtual_s: float
    faults: int

    @property
    def trace_sha256(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class World:
    """Built from a seed; `run` once."""

    def __init__(self, seed: int) -> None:
        plan = Random(seed)
        self.seed = seed
        self.trace: list[tuple[float, int, str]] = []
        self.soak_s = SOAK_S
        self.loop = VirtualLoop(Random(plan.getrandbits(32)))
        self.network = Network(self.loop, Random(plan.getrandbits(32)), {})
        self.publisher = Publisher(Random(plan.getrandbits(32)))
        self.old_nodes = plan.random() < 0.1
        self.judge = Judge(self)
        self.faults = 0
        self.nodes: list[Node] = []
        count = plan.choices((1, 2, 3), (70, 22, 8))[0]
        self.judge.begin(count)
        self.cloud = Cloud(self, self.publisher, Random(plan.getrandbits(32)), count)
        self.nodes += [Node(self, number, Random(plan.getrandbits(32))) for number in range(count)]
        self.cloud.start()
        self.chaos_s = plan.uniform(15.0, 60.0)
        self._is_over = False
        self._plan(plan)

    def _plan(self, plan: Random) -> None:
        for _ in range(plan.choice((1, 2, 2, 3, 4))):
            self.loop.after(plan.uniform(0.0, self.chaos_s), self._apply, plan)
        kinds = plan.sample(FAULTS, plan.randrange(1, 5))
        for _ in range(plan.choice((0, 1, 2, 3, 4, 6, 8))):
            self.loop.after(
                plan.uniform(0.0, self.chaos_s), self._fault, plan.choice(kinds), Random(plan.getrandbits(32))
            )
        self.loop.after(self.chaos_s, self._heal)

    def run(self) -> Outcome:
        with _quiet():
            at_most_s = self.chaos_s + CONVERGES_WITHIN_S
            self.loop.run(self._done, self.judge.watch, at_most_s=at_most_s)
            failures = list(self.loop.failures)
        if not self._is_over and not self.judge.violations and not failures:
            for reason in self.judge.unsettled():
                self.judge.fail(f"{reason} {CONVERGES_WITHIN_S:.0f} s after the last fault")
        for failure in failures:
            self.judge.fail(failure)
        self._end()
        trace = tuple(f"{at_s:9.3f} {'' if node < 0 else f'node {node} '}{what}" for at_s, node, what in self.trace)
        return Outcome(self.seed, tuple(self.judge.violations), trace, self.loop.time(), self.faults)

    def _end(self) -> None:
        """Nothing is left behind for the next simulation."""
        for node in self.nodes:
            if node.life:
                node.life.die()
        with _quiet():
            self.loop.unwind()

    def say(self, node: int, what: str) -> None:
        """A line of the trace. node: -1 for none."""
        self.trace.append((self.loop.time(), node, what))

    def _done(self) -> bool:
        return self._is_over or bool(self.judge.violations) or bool(self.loop.failures)

    # ---- what people do

    def _apply(self, plan: Random) -> None:
        behaviour = plan.choices([each for each, _ in BEHAVIOURS], [weight for _, weight in BEHAVIOURS])[0]
        newer = self.old_nodes and plan.random() < 0.4
        revision = self.publisher.publish(behaviour, with_newer_kind=newer, now_s=self.loop.time())
        self.say(-1, f"revision {revision.number} is {behaviour}{', of a newer kind' if newer else ''}")
        if self.cloud.is_up:
            self.cloud.targets_changed()
        if plan.random() < 0.2:  # the next one follows on its heels
            self.loop.after(plan.expovariate(1 / 0.05), self._apply, plan)

    # ---- what goes wrong

    def _fault(self, fault: "Fault", rng: Random) -> None:
        if self.loop.time() < self.chaos_s:
            self.faults += 1
            self.say(-1, f"fault: {fault.__name__}")
            fault(self, rng)

    def _heal(self) -> None:
        """No fault begins any more, and those that last are over."""
        self.say(-1, "no more faults")
        self.network.partitioned_until_s.clear()
        self.cloud.corrupt = None
        for node in self.nodes:
            node.broken_until_s = node.clock.offset_s = 0.0
            if life := node.life:
                life.disk.cut_in = life.disk.fail_in = None
        self._look()

    def _look(self) -> None:
        self._is_over = self.cloud.is_up and not any(self.judge.unsettled())
        self.loop.after(LOOK_S, self._look)


Fault = Callable[[World, Random], None]


def kill_node(world: World, rng: Random) -> None:
    rng.choice(world.nodes).kill(power=False)


def cut_power(world: World, rng: Random) -> None:
    rng.choice(world.nodes).kill(power=True)


def cut_power_while_writing(world: World, rng: Random) -> None:
    if life := rng.choice(world.nodes).life:
        life.disk.cut_in, life.cut_is_power = rng.randrange(40), True


def kill_while_writing(world: World, rng: Random) -> None:
    if life := rng.choice(world.nodes).life:
        life.disk.cut_in, life.cut_is_power = rng.randrange(40), False


def fill_disk(world: World, rng: Random) -> None:
    if life := rng.choice(world.nodes).life:
        life.disk.fail_in, life.disk.failing = rng.randrange(20), rng.choice((1, 1, 2, 10))


def break_plant(world: World, rng: Random) -> None:
    rng.choice(world.nodes).broken_until_s = world.loop.time() + rng.uniform(1.0, 20.0)


def crash_cloud(world: World, rng: Random) -> None:
    if world.cloud.is_up:
        world.cloud.crash()
        world.loop.after(rng.uniform(0.1, 10.0), world.cloud.start)


def drain_cloud(world: World, rng: Random) -> None:
    world.cloud.drain()


def cut_connection(world: World, rng: Random) -> None:
    for stream in list(world.cloud.live.values()):
        if rng.random() < 0.7:
            stream.connection.cut(node_learns=True, cloud_learns=True)


def half_open(world: World, rng: Random) -> None:
    for stream in list(world.cloud.live.values()):
        node_learns = rng.random() < 0.5
        stream.connection.cut(node_learns=node_learns, cloud_learns=not node_learns and rng.random() < 0.5)


def partition(world: World, rng: Random) -> None:
    node = rng.choice(world.nodes).number
    world.network.partitioned_until_s[node] = world.loop.time() + rng.uniform(1.0, 30.0)


def jump_clock(world: World, rng: Random) -> None:
    rng.choice(world.nodes).clock.offset_s = rng.choice((-3, -1, 1, 3)) * 86_400.0 * rng.random()


def lie(world: World, rng: Random) -> None:
    """The control plane, or whoever took it over, changes the next offer."""
    tamper = rng.choice(TAMPERINGS)

    def corrupt(offer: ConfigOffer) -> ConfigOffer:
        tampered = ConfigOffer()
        tampered.CopyFrom(offer)
        tamper(world, tampered, rng)
        world.say(-1, f"the offer of {offer.revision} is tampered with: {tamper.__name__}")
        return tampered

    world.cloud.corrupt = corrupt


FAULTS: list[Fault] = [
    kill_node,
    cut_power,
    cut_power_while_writing,
    kill_while_writing,
    fill_disk,
    break_plant,
    crash_cloud,
    drain_cloud,
    cut_connection,
    half_open,
    partition,
    jump_clock,
    lie,
]


def forge_signature(world: World, offer: ConfigOffer, rng: Random) -> None:
    offer.metadata.targets = rng.randbytes(32)


def forge_revision(world: World, offer: ConfigOffer, rng: Random) -> None:
    """A whole revision of somebody else's, under the number that is due and without the publisher's signature."""
    forged = revision_of(offer.revision, Behaviour.GOOD, [model("llm", context_tokens=4096)], rng)
    offer.manifest = forged.manifest
    offer.metadata.CopyFrom(signed(world.publisher.timestamps, 1e9, forged.number, forged.sha256))
    offer.metadata.targets = rng.randbytes(32)
    del offer.blobs[:]
    for sha256, body in forged.blobs.items():
        offer.blobs.add(sha256=sha256, data=body)


def change_body(world: World, offer: ConfigOffer, rng: Random) -> None:
    for blob in offer.blobs:
        blob.data += b"\0"


def rename_revision(world: World, offer: ConfigOffer, rng: Random) -> None:
    offer.revision += rng.choice((-1, 1, 7))


def replay_older(world: World, offer: ConfigOffer, rng: Random) -> None:
    """With metadata that was once signed for it, and has a later timestamp than any."""
    older = world.publisher.revisions[rng.randrange(len(world.publisher.revisions)) + 1]
    world.publisher.timestamps += 1
    expires_s = world.loop.time() + 86_400.0
    offer.metadata.CopyFrom(signed(world.publisher.timestamps, expires_s, older.number, older.sha256))
    offer.revision, offer.manifest = older.number, older.manifest
    del offer.blobs[:]
    for sha256, body in older.blobs.items():
        offer.blobs.add(sha256=sha256, data=body)


TAMPERINGS = [forge_signature, forge_revision, change_body, rename_revision, replay_older]


def simulate(seed: int) -> Outcome:
    return World(seed).run()


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
