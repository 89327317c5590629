"""The server's shell around the session machine, where a stream breaks under it."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from tests.patience import PATIENCE_S
from tunnel import live_session, session
from tunnel.live_session import LiveSession
from tunnel.offer_frame import EncodedOffer
from tunnel.push_window import PushWindow
from tunnel.server import TunnelServer
from tunnel.tls import Peer


class BrokenStream:
    """gRPC's side of a stream that ended after it was asked whether it had."""

    def __init__(self) -> None:
        self.writes = 0

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    async def write(self, _frame: object) -> None:
        self.writes += 1
        raise grpc.aio.InternalError


class StuckStream(BrokenStream):
    """The node reads nothing of it."""

    async def write(self, _frame: object) -> None:
        await asyncio.Event().wait()


class WholeStream(BrokenStream):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Any] = []

    async def write(self, frame: object) -> None:
        self.frames.append(frame)


async def test_stream_that_breaks_during_a_write_ends_nobody_else() -> None:
    """One node that vanishes must not end the loop that serves all nodes, nor keep the server from stopping."""
    context = BrokenStream()
    identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName("n"))
    peer, nobody = Peer(identity.spiffe_id, 1), cast(Any, None)
    live = LiveSession(identity, peer, cast(Any, context), nobody, SystemClock(), 15.0, nobody)

    await live.drain()

    assert context.writes == 1
    assert not live.is_open


async def test_a_drain_that_fails_stops_the_server_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Its port would stay open, and the other nodes connected to a control plane that is no more."""
    nobody = cast(Any, None)
    stops: list[float] = []

    class DefectStream(BrokenStream):
        async def write(self, _frame: object) -> None:
            raise ZeroDivisionError

    class Listening:
        async def stop(self, grace_s: float) -> None:
            stops.append(grace_s)

    server = TunnelServer("127.0.0.1:0", nobody, enrolments=nobody, renewals=nobody, fleet=nobody, events=nobody)
    for name, context in (("defect", DefectStream()), ("whole", WholeStream())):
        identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName(name))
        peer = Peer(identity.spiffe_id, 1)
        server._sessions.add(LiveSession(identity, peer, cast(Any, context), nobody, SystemClock(), 15.0, nobody))

    await server._stop(cast(Any, Listening()))

    assert len(stops) == 1
    assert all(live._call.closed_by for live in server._sessions)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["session.defect"]


async def test_node_that_does_not_listen_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """One machine that hangs must not keep a fleet from its configuration, nor an operator from the answer."""
    told: list[str] = []
    unstuck, all_told = asyncio.Event(), asyncio.Event()

    class Nodes:
        async def target(self, identity: NodeIdentity) -> None:
            if identity.node == "stuck":
                await unstuck.wait()
            if identity.node == "broken":
                raise ZeroDivisionError
            told.append(identity.node)
            if len(told) == 40:
                all_told.set()

    nobody = cast(Any, None)
    clock = SystemClock()
    server = TunnelServer(
        "127.0.0.1:0", nobody, enrolments=nobody, renewals=nobody, fleet=cast(Any, Nodes()), events=nobody
    )
    for name in ("stuck", "broken", *(f"n-{number}" for number in range(40))):
        identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName(name))
        peer = Peer(identity.spiffe_id, 1)
        server._live[identity] = LiveSession(identity, peer, nobody, nobody, clock, 15.0, nobody)
    async with asyncio.TaskGroup() as server._tasks:
        await server.targets_changed("t")
        async with asyncio.timeout(PATIENCE_S):
            await all_told.wait()
        unstuck.set()

    assert told[-1] == "stuck"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["session.defect"]


async def test_a_node_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on sending heartbeats would otherwise have one more frame wait for it each time, for ever."""
    monkeypatch.setattr(live_session, "WRITE_S", 0.02)
    context = StuckStream()
    identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName("n"))
    nobody = cast(Any, None)
    live = LiveSession(identity, Peer("", 1), cast(Any, context), nobody, SystemClock(), 15.0, nobody)

    async with asyncio.timeout(PATIENCE_S):
        await live.surely(live.perform([session.Beat(1)]))

    assert live._call.closed_by is not None
    assert live._call.closed_by.code.code == "session.peer_takes_nothing"


async def test_a_change_while_a_node_says_hello_reaches_it() -> None:
    """It is not among those that are told yet, and what it was read may be what stood before: it would never hear."""
    context = WholeStream()
    identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName("n"))

    class Fleet:
        latest = 1

        async def greeted(self, *_: object) -> frozenset[int]:
            return frozenset()

        async def target(self, _: NodeIdentity) -> session.Target:
            read = session.Target(self.latest, b"%d" % self.latest)
            if self.latest == 1:
                self.latest = 2
                await server.targets_changed("t")
            return read

        async def offer(self, _: NodeIdentity, target: session.Target, known: frozenset[bytes]) -> EncodedOffer:
            data = tunnel.ConfigOffer(revision=target.revision).SerializeToString()
            return EncodedOffer(target.revision, data, known)

    nobody, fleet = cast(Any, None), cast(Any, Fleet())
    server = TunnelServer("127.0.0.1:0", nobody, enrolments=nobody, renewals=nobody, fleet=fleet, events=nobody)
    live = LiveSession(identity, Peer("", 1), cast(Any, context), fleet, SystemClock(), 15.0, server._welcomed)
    server._sessions.add(live)
    facts = tunnel.ConfigFacts(running_revision=1, healthy_revision=1, running_manifest_sha256=b"1")

    await live._receive(tunnel.NodeFrame(hello=tunnel.Hello(config=facts)))

    assert tunnel.CloudFrame.FromString(context.frames[-1]).config_offer.revision == 2


async def test_a_push_goes_to_few_nodes_at_once_while_somebody_calls() -> None:
    """An admin call waits for every answer that came before it: a fleet told all at once would hold up everybody."""
    nobody, clock, asked = cast(Any, None), SystemClock(), list[NodeIdentity]()
    full = asyncio.Event()

    class Nodes:
        async def target(self, identity: NodeIdentity) -> session.Target:
            asked.append(identity)
            if len(asked) == 4:
                full.set()
            return session.Target(1, b"1")

        async def offer(self, _: NodeIdentity, target: session.Target, known: frozenset[bytes]) -> EncodedOffer:
            return EncodedOffer(target.revision, b"", known)

    fleet = cast(Any, Nodes())
    server = TunnelServer("127.0.0.1:0", nobody, enrolments=nobody, renewals=nobody, fleet=fleet, events=nobody)
    server._window = PushWindow(places=8, patience_s=60.0, few_places=4)
    for number in range(20):
        identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName(f"n-{number}"))
        live = LiveSession(identity, Peer("", 1), cast(Any, WholeStream()), fleet, clock, 15.0, nobody)
        live._machine.phase = session.Phase.OPEN
        server._live[identity] = live
    server.make_room()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as server._tasks:
        telling = server._tasks.create_task(server._tell("t", server._tasks))
        await full.wait()
        await asyncio.sleep(0)
        at_once = len(asked)
        for _ in range(16):
            server._window.leave(server._live[asked[-1]])
            await asyncio.sleep(0)
        telling.cancel()

    assert at_once == 4
    assert len(asked) > 4
