"""Renewal, recovery, revocation and eviction between whole planes over real TLS."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.fleet.frame_record import read_frames
from data_plane.ceiling.models import Ceiling
from data_plane.egress.reader import read_leaves
from data_plane.egress.service import Egress, ledger_folder, open_egress
from data_plane.identity.certificates import NodeCertificates
from data_plane.identity.store import IdentityStore, Membership
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import DeniedError
from faos_core.kinds import BY_KIND
from faos_core.lifecycle import running
from tests.patience import PATIENCE_S
from tests.system.harness import TENANT, RunningControlPlane, running_control_plane
from tests.system.test_enrolment import session_status
from tests.system.test_sessions import ending, eventually, greet, policy
from tunnel.backoff import Backoff
from tunnel.client import RECOVER, TunnelClient, open_channel
from tunnel.identity import certificate_request, new_key


class Eager(Backoff):
    """Dials again soon: these tests are about certificates."""

    def next_delay_s(self, *, lasted_s: float, retry_after_s: float = 0.0) -> float:
        return 0.2


@dataclass
class Obedient:
    """A node's side that is healthy at once with whatever it is offered."""

    egress: Egress
    epoch: int = 1
    boot_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    healthy: int = 0
    welcomes: int = 0
    is_connected: bool = False
    losses: int = 0
    statuses: "asyncio.Queue[tunnel.ApplyStatus]" = field(default_factory=asyncio.Queue)

    def is_at(self, revision: int) -> bool:
        return self.healthy == revision

    def facts(self) -> tunnel.ConfigFacts:
        return tunnel.ConfigFacts(
            attempted_revision=self.healthy, running_revision=self.healthy, healthy_revision=self.healthy
        )

    def hello(self) -> tunnel.Hello:
        self.egress.identifiers.allow(self.boot_id)
        hello = tunnel.Hello(boot_id=self.boot_id, epoch=self.epoch, kinds=list(BY_KIND), config=self.facts())
        hello.ledger_head.CopyFrom(self.head())
        return hello

    def head(self) -> tunnel.LedgerHead:
        head = self.egress.gate.head()
        return tunnel.LedgerHead(size=head.size, root_sha256=head.root_sha256)

    def heartbeat(self, sequence: int) -> tunnel.NodeHeartbeat:
        return tunnel.NodeHeartbeat(sequence=sequence)

    async def offered(self, offer: tunnel.ConfigOffer) -> None:
        self.egress.identifiers.allow(offer.nonce)
        for state in (tunnel.APPLY_STATE_RECEIVED, tunnel.APPLY_STATE_APPLYING):
            self.put(offer, state)
        self.healthy = offer.revision
        self.put(offer, tunnel.APPLY_STATE_HEALTHY)

    def put(self, offer: tunnel.ConfigOffer, state: tunnel.ApplyState.ValueType) -> None:
        status = tunnel.ApplyStatus(nonce=offer.nonce, revision=offer.revision, state=state, config=self.facts())
        self.statuses.put_nowait(status)

    async def next_status(self) -> tunnel.ApplyStatus:
        return await self.statuses.get()

    def connected(self, is_connected: bool) -> None:
        self.losses += not is_connected
        self.welcomes += is_connected
        self.is_connected = is_connected


@asynccontextmanager
async def light_node(plane: RunningControlPlane, data_dir: Path, *, epoch: int = 1) -> AsyncIterator[Obedient]:
    """The real identity, gate, ledger and tunnel; nothing behind them."""
    async with AsyncExitStack() as stack:
        egress = await stack.enter_async_context(open_egress(data_dir, Ceiling()))
        side = Obedient(egress, epoch=epoch)
        certificates = NodeCertificates(IdentityStore(data_dir), SystemClock(), allow=egress.identifiers.allow)
        client = TunnelClient([plane.tunnel_address], certificates, sealer=egress.gate, node=side, backoff=Eager())
        await stack.enter_async_context(running([client]))
        yield side


def serial_of(data_dir: Path) -> bytes:
    return IdentityStore(data_dir).load().credentials.chain_pem


async def test_five_renewals_in_a_minute_lose_and_double_nothing(tmp_path: Path) -> None:
    """Certificates live for a day, so a switch must cost nothing: no gap, no status lost, no leaf twice."""
    settings: dict[str, Any] = {"node_certificate_lifetime_s": 8.0, "heartbeat_s": 4.0}
    began_s, applied = time.monotonic(), 0
    async with running_control_plane(tmp_path / "cp", **settings) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        seen, wrong = {serial_of(tmp_path / "node")}, 0
        async with light_node(plane, tmp_path / "node") as side:
            while len(seen) < 6 and time.monotonic() - began_s < PATIENCE_S:
                applied += 1
                await plane.apply(policy(f"p{applied}"))
                await eventually(partial(side.is_at, applied))
                await asyncio.sleep(0.1)
                seen.add(serial_of(tmp_path / "node"))
                wrong += (await plane.node(member.identity.node)).liveness != admin.LIVENESS_LIVE
            took_s = time.monotonic() - began_s

            async def recorded() -> bool:
                return bool((await plane.node(member.identity.node)).config.healthy_revision == applied)

            await eventually(recorded)
            assert side.losses == 0, "never without a session"
        request = admin.GetNodeRequest(tenant=TENANT, name=member.identity.node)
        answer = await plane.nodes.GetNode(request, metadata=plane.metadata)
        assert await session_status(plane, member.credentials) != (grpc.StatusCode.OK, "welcome"), (
            "the first is refused"
        )
    print(f"\n{len(seen) - 1} renewals in {took_s:.1f} s, {applied} revisions, {wrong} looks that found it not live")  # noqa: T201  # a figure for the report

    assert min(len(seen), side.welcomes) >= 6
    assert wrong == 0
    assert all(each.state == tunnel.APPLY_STATE_HEALTHY for each in answer.history)
    sent = Counter(leaf.body for leaf in read_leaves(ledger_folder(tmp_path / "node")))
    received = Counter(read_frames(tmp_path / "cp" / "received-frames.bin"))
    assert received.total() > 5 * applied / 2
    assert not received - sent - Counter([b""]) - probes(received), "what came is in the ledger, and came once"


def probes(received: Counter[bytes]) -> Counter[bytes]:
    """The empty Hello of `session_status`, which no node sends."""
    return Counter({tunnel.NodeFrame(hello=tunnel.Hello()).SerializeToString(): 1})


@pytest.mark.parametrize("lost", ["answer", "next", "promotion"])
async def test_a_crash_between_the_phases_leaves_a_pair_that_works(
    tmp_path: Path, lost: str, database_url: str
) -> None:
    """Before the answer is on the disk, before it was used, after it was used and before the node noted so."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        store = IdentityStore(tmp_path / "node")
        before = serial_of(tmp_path / "node")
        async with open_egress(tmp_path / "node", Ceiling()) as egress:
            certificates = NodeCertificates(store, SystemClock(), allow=egress.identifiers.allow)
            async with open_channel(plane.tunnel_address, store.load().credentials) as channel:
                await certificates.renew(lambda csr_der: renew(channel, csr_der))
        if lost == "answer":
            store.discard_next()
        elif lost == "promotion":
            assert await session_status(plane, certificates.for_dialling()) == (grpc.StatusCode.OK, "welcome")

        async with light_node(plane, tmp_path / "node") as side:
            await eventually(lambda: side.is_connected)

        assert (serial_of(tmp_path / "node") == before) == (lost == "answer")
        assert store.load_next() is None


async def renew(channel: grpc.aio.Channel, csr_der: bytes) -> tunnel.RenewResponse:
    call: Any = channel.unary_unary(
        "/faos.tunnel.v1.Tunnel/Renew", response_deserializer=tunnel.RenewResponse.FromString
    )
    answer: tunnel.RenewResponse = await call(tunnel.RenewRequest(csr_der=csr_der).SerializeToString())
    return answer


async def test_a_new_pair_that_is_refused_gives_way_to_the_old(tmp_path: Path) -> None:
    """A control plane restored from a backup knows nothing of the newest certificate."""
    async with running_control_plane(tmp_path / "cp") as plane:
        await plane.create_tenant()
        await plane.join(tmp_path / "node")
        other = await plane.join(tmp_path / "other")
        store = IdentityStore(tmp_path / "node")
        store.put_next(other.credentials)  # of a node that is evicted: signed, and refused
        await plane.nodes.EvictNode(
            admin.EvictNodeRequest(tenant=TENANT, name=other.identity.node), metadata=plane.metadata
        )

        async with light_node(plane, tmp_path / "node") as side:
            await eventually(lambda: side.is_connected)

    assert store.load_next() is None


async def test_revoking_cuts_a_live_stream_within_a_second_and_bans_the_machine(
    tmp_path: Path, database_url: str
) -> None:
    """A stolen node must be gone when the operator's command returns, and must not come back under a new token. A busy
    machine only makes it slower: the quickest of three counts, and no heartbeat comes to their help."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url, heartbeat_s=300.0) as plane:
        await plane.create_tenant()
        took_s = []
        for data_dir in (tmp_path / "first", tmp_path / "second", tmp_path / "node"):
            member = await plane.join(data_dir)
            took_s.append(await revoked_and_cut(plane, member))
        print(f"\nrevoked and cut in {min(took_s) * 1000:.0f} ms")  # noqa: T201  # a figure for the report

        assert min(took_s) < 1.0
        name = member.identity.node
        status, detail = await session_status(plane, member.credentials)
        assert (status, "node.revoked" in detail) == (grpc.StatusCode.UNAUTHENTICATED, True)
        seen = await plane.node(name)
        assert (seen.standing, seen.standing_reason) == (admin.NODE_STANDING_REVOKED, "stolen")
        (tmp_path / "node" / "identity").rename(tmp_path / "moved-away")
        with pytest.raises(DeniedError) as refused:
            await plane.join(tmp_path / "node")
        assert refused.value.code.code == "node.revoked"


async def revoked_and_cut(plane: RunningControlPlane, member: Membership) -> float:
    """Seconds from the operator's request to the end of the node's stream."""
    async with open_channel(plane.tunnel_address, member.credentials) as channel:
        call = await greet(channel)
        began_s = time.monotonic()
        request = admin.RevokeNodeRequest(tenant=TENANT, name=member.identity.node, reason="stolen")
        await plane.nodes.RevokeNode(request, metadata=plane.metadata)
        _, detail = await ending(call)
        took_s = time.monotonic() - began_s
    assert "node.revoked" in detail
    return took_s


async def test_an_evicted_machine_joins_again_as_another_node(tmp_path: Path, database_url: str) -> None:
    """Evicting is for machines that are fine."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        first = await plane.join(tmp_path / "node")
        request = admin.EvictNodeRequest(tenant=TENANT, name=first.identity.node)
        await plane.nodes.EvictNode(request, metadata=plane.metadata)
        assert (await session_status(plane, first.credentials))[0] is grpc.StatusCode.UNAUTHENTICATED
        (tmp_path / "node" / "identity").rename(tmp_path / "moved-away")

        second = await plane.join(tmp_path / "node")

        assert await session_status(plane, second.credentials) == (grpc.StatusCode.OK, "welcome")
        assert second.identity != first.identity


async def test_an_expired_node_recovers_by_itself_and_a_used_counter_quarantines(
    tmp_path: Path, database_url: str
) -> None:
    """A node that was off for a week needs no person; two holders of its recovery key need one."""
    async with running_control_plane(
        tmp_path / "cp", database_url=database_url, node_certificate_lifetime_s=2.0
    ) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")

        async def expired() -> bool:
            return (await session_status(plane, member.credentials))[0] is grpc.StatusCode.UNAVAILABLE

        await eventually(expired)
        async with light_node(plane, tmp_path / "node") as side:
            await eventually(lambda: side.is_connected)
        assert (await plane.node(member.identity.node)).standing == admin.NODE_STANDING_ADMITTED

        credentials = IdentityStore(tmp_path / "node").recovery()
        assert credentials
        assert (await session_status(plane, credentials))[0] is grpc.StatusCode.UNAUTHENTICATED, "it opens nothing else"
        request = tunnel.RecoverRequest(counter=1, csr_der=certificate_request(new_key()))
        async with open_channel(plane.tunnel_address, credentials) as channel:
            status = await channel.unary_unary(RECOVER)(request.SerializeToString()).code()
            again = await channel.unary_unary(RECOVER)(request.SerializeToString()).code()

        seen = await plane.node(member.identity.node)
        assert (status, again) == (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
        assert (seen.standing, seen.alarm) == (admin.NODE_STANDING_QUARANTINED, "node.recovery_reused")


async def test_a_copied_node_is_told(tmp_path: Path, database_url: str) -> None:
    """The same identity from two machines is shown, before it does harm."""
    async with running_control_plane(tmp_path / "cp", database_url=database_url) as plane:
        await plane.create_tenant()
        member = await plane.join(tmp_path / "node")
        for epoch, expected in ((3, ""), (4, ""), (3, "node.cloned")):
            async with light_node(plane, tmp_path / "node", epoch=epoch) as side:
                await eventually(lambda: side.is_connected)  # awaited within the turn
            assert (await plane.node(member.identity.node)).alarm == expected
