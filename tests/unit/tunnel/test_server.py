"""The server's shell around the session machine, where a stream breaks under it."""

from typing import Any, cast

import grpc

from faos_core.clock import SystemClock
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from tunnel.server import _LiveSession
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
