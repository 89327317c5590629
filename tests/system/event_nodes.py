"""A node with nothing behind its tunnel but a spool of events, and what its control plane has of them."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from data_plane.ceiling.models import Ceiling
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import ledger_folder, open_egress
from data_plane.events.limits import SpoolLimits
from data_plane.events.spool import EventSpool
from data_plane.identity.certificates import NodeCertificates
from data_plane.identity.store import IdentityStore
from data_plane.storage.service import open_storage
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.lifecycle import running
from tests.system.harness import TENANT, RunningControlPlane
from tests.system.test_certificate_life import Eager, Obedient
from tunnel.client import BlobFetcher, TunnelClient


class WatchedBlobs(BlobFetcher):
    """Shows what has arrived of a blob while it is fetched."""

    arrived: bytes | bytearray = b""

    async def _fetch(self, sha256: bytes, data: bytearray) -> None:
        self.arrived = data
        await super()._fetch(sha256, data)


@dataclass
class EventNode:
    side: Obedient
    spool: EventSpool
    blobs: WatchedBlobs
    made: int = 0

    async def make(self) -> str:
        """The id of a run whose end is durable here."""
        self.made += 1
        run_id = f"run-{self.spool.epoch}-{self.made}"
        await self.spool.record(tunnel.Event(run_ended=tunnel.RunEnded(run_id=run_id, agent="helper")))
        return run_id


@asynccontextmanager
async def event_node(address: str, data_dir: Path, *, limits: SpoolLimits | None = None) -> AsyncIterator[EventNode]:
    """The real identity, gate, ledger, store, spool and tunnel."""
    identity = IdentityStore(data_dir)
    member, clock = identity.load(), SystemClock()
    async with AsyncExitStack() as stack:
        egress = await stack.enter_async_context(open_egress(data_dir, Ceiling()))
        storage = await stack.enter_async_context(open_storage(data_dir, tenant=member.identity.tenant))
        epoch, allow = identity.next_epoch(), egress.identifiers.allow
        node = member.identity.spiffe_id
        spool = await EventSpool.open(storage.store, clock, node=node, epoch=epoch, allow=allow, limits=limits)
        side, blobs = Obedient(egress, epoch=epoch), WatchedBlobs()
        client = TunnelClient(
            [address],
            NodeCertificates(identity, clock, allow=allow),
            sealer=egress.gate,
            node=side,
            blobs=blobs,
            backoff=Eager(),
            events=spool,
        )
        await stack.enter_async_context(running([client]))
        yield EventNode(side, spool, blobs)


async def events_of(plane: RunningControlPlane, node: str = "") -> list[tunnel.Event]:
    """All that the control plane has, oldest first, as an operator gets them."""
    found: list[tunnel.Event] = []
    request = admin.ListEventsRequest(tenant=TENANT, node=node, page_size=1000)
    while True:
        answer = await plane.nodes.ListEvents(request, metadata=plane.metadata)
        found += [each.event for each in answer.events]
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found[::-1]


async def run_ids(plane: RunningControlPlane) -> list[str]:
    return [each.run_ended.run_id for each in await events_of(plane)]


def batches_beyond_ledger(received: list[bytes], data_dir: Path) -> Counter[bytes]:
    """What came in that is no leaf of the node's ledger, or came oftener than it is."""
    return Counter(received) - Counter(leaf.body or b"" for leaf in read_leaves(ledger_folder(data_dir)))
