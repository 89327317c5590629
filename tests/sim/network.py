"""Connections that keep their order and lose their end: delay, cut at any message, half-open, partition."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.sim.virtual_loop import VirtualLoop

Deliver = Callable[[bytes], None]
Lost = Callable[[], None]
MEAN_DELAY_S = 0.04


@dataclass(slots=True)
class Network:
    """The way between sites and their control plane. partitioned_until_s: by node."""

    loop: VirtualLoop
    rng: Random
    partitioned_until_s: dict[int, float]

    def delay_s(self) -> float:
        """Mostly short, seldom seconds."""
        slow = self.rng.random() < 0.02
        return self.rng.expovariate(1 / (2.0 if slow else MEAN_DELAY_S))

    def is_partitioned(self, node: int) -> bool:
        return self.loop.time() < self.partitioned_until_s.get(node, 0.0)

    def arrives_in_s(self, node: int) -> float:
        """What is sent during a partition arrives after it, if the connection lives that long."""
        held_s = max(0.0, self.partitioned_until_s.get(node, 0.0) - self.loop.time())
        return held_s + self.delay_s()


class End:
    """One end of a connection. `deliver` and `lost` are its owner's; neither is called after `close`."""

    __slots__ = ("_due_s", "_link", "deliver", "is_open", "lost", "peer")

    def __init__(self, link: "Connection") -> None:
        self._link = link
        self._due_s = 0.0
        self.is_open = True
        self.deliver: Deliver = lambda _: None
        self.lost: Lost = lambda: None
        self.peer: End

    def send(self, data: bytes) -> None:
        """In order; what a cut or a closed end swallows is gone."""
        link = self._link
        if not self.is_open or link.is_cut:
            return
        loop = link.network.loop
        self._due_s = max(self._due_s, loop.time() + link.network.arrives_in_s(link.node))
        loop.at(self._due_s, self.peer._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self.is_open and not self._link.is_cut:
            self.deliver(data)

    def close(self) -> None:
        """The other end learns of it after what was sent before, unless the connection was cut."""
        if not self.is_open:
            return
        self.is_open = False
        link = self._link
        if link.is_cut:
            return
        loop = link.network.loop
        self._due_s = max(self._due_s, loop.time() + link.network.arrives_in_s(link.node))
        loop.at(self._due_s, self.peer.break_off)

    def vanish(self) -> None:
        """Its process is gone, and says nothing more."""
        self.is_open = False

    def break_off(self) -> None:
        if self.is_open:
            self.is_open = False
            self.lost()


class Connection:
    """Two ends."""

    __slots__ = ("cloud_end", "is_cut", "network", "node", "node_end")

    def __init__(self, network: Network, node: int) -> None:
        self.network = network
        self.node = node
        self.is_cut = False
        self.node_end, self.cloud_end = End(self), End(self)
        self.node_end.peer, self.cloud_end.peer = self.cloud_end, self.node_end

    def cut(self, *, node_learns: bool, cloud_learns: bool) -> None:
        """What is under way is lost. An end that does not learn of it believes in the connection."""
        self.is_cut = True
        for end, learns in ((self.node_end, node_learns), (self.cloud_end, cloud_learns)):
            if learns:
                self.network.loop.after(self.network.delay_s(), end.break_off)
