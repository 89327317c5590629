"""What the node says about itself on the tunnel. Implements tunnel.client.NodeSide."""

import secrets
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from data_plane.agents.interfaces import RunCounts
from data_plane.egress.interfaces import Gate, Identifiers
from data_plane.link.applier import Applier
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import Clock
from faos_core.kinds import BY_KIND
from faos_core.timestamps import timestamp
from tunnel.session import PROTOCOL


def node_version() -> str:
    """The installed version of this software."""
    try:
        return version("faos-hybrid")
    except PackageNotFoundError:
        return "0"


class NodeSession:
    """The node's own words. Every id in them is allowed at the gate here, and nowhere else."""

    def __init__(
        self,
        *,
        applier: Applier,
        gate: Gate,
        identifiers: Identifiers,
        counts: Callable[[], RunCounts],
        epoch: int,
        clock: Clock,
    ) -> None:
        self.is_connected = False
        self._applier = applier
        self._gate = gate
        self._identifiers = identifiers
        self._counts = counts
        self._epoch = epoch
        self._clock = clock
        self._boot_id = secrets.token_bytes(16)

    def hello(self) -> tunnel.Hello:
        facts = self._applier.facts()
        hello = tunnel.Hello(
            boot_id=self._boot_id,
            epoch=self._epoch,
            node_version=node_version(),
            protocol=PROTOCOL,
            kinds=list(BY_KIND),
            known_sha256=self._applier.known_sha256(),
            config=facts,
            ledger_head=self._head(),
        )
        self._identifiers.allow(hello.boot_id, hello.node_version, *hello.known_sha256)
        self._allow_facts(facts)
        return hello

    def heartbeat(self, sequence: int) -> tunnel.NodeHeartbeat:
        counts = self._counts()
        facts = self._applier.facts()
        self._allow_facts(facts)
        return tunnel.NodeHeartbeat(
            sent_at=timestamp(self._clock.now()),
            sequence=sequence,
            ledger_head=self._head(),
            active_runs=counts.active,
            finished_runs=counts.finished,
            config=facts,
        )

    async def offered(self, offer: tunnel.ConfigOffer) -> None:
        self._identifiers.allow(offer.nonce)
        await self._applier.offer(offer)

    async def next_status(self) -> tunnel.ApplyStatus:
        status = await self._applier.statuses.take()
        self._allow_facts(status.config)
        if status.HasField("nack"):
            self._identifiers.allow(status.nack.resource_name)
        return status

    def connected(self, is_connected: bool) -> None:
        if is_connected:
            self._applier.statuses.clear()  # of another stream: its Hello told the facts
        self.is_connected = is_connected

    def _allow_facts(self, facts: tunnel.ConfigFacts) -> None:
        self._identifiers.allow(facts.running_manifest_sha256, *facts.quarantined_manifest_sha256)

    def _head(self) -> tunnel.LedgerHead:
        head = self._gate.head()
        return tunnel.LedgerHead(size=head.size, root_sha256=head.root_sha256)
