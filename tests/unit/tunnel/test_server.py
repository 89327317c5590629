"""The server's shell around the session machine, where a stream breaks under it."""

import asyncio
from typing import Any, cast

import grpc
import pytest

from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from tunnel.server import TunnelServer, _LiveSession
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


async def test_stream_that_breaks_during_a_write_ends_nobody_else() -> None:
    """One node that vanishes must not end the loop that serves all nodes, nor keep the server from stopping."""
    context = BrokenStream()
    identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName("n"))
    peer, nobody = Peer(identity.spiffe_id, 1), cast(Any, None)
    live = _LiveSession(identity, peer, cast(Any, context), nobody, SystemClock(), 15.0, nobody)

    await live.drain()

    assert context.writes == 1
    assert not live.is_open


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
        server._live[identity] = _LiveSession(identity, peer, nobody, nobody, clock, 15.0, nobody)
    async with asyncio.TaskGroup() as server._tasks:
        await server.targets_changed("t")
        async with asyncio.timeout(10):
            await all_told.wait()
        unstuck.set()

    assert told[-1] == "stuck"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["session.defect"]
