"""Sessions between whole planes: superseded, drained, taken up again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1.resource_pb2 import POLICY_EFFECT_ALLOW, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.patience import PATIENCE_S
from tests.system.harness import RunningControlPlane, running_control_plane
from tests.system.sites import Site
from tunnel.client import SESSION, open_channel
from tunnel.error_mapping import DETAIL_KEY
from tunnel.tls import Credentials


def policy(name: str, rule: str = "all") -> Resource:
    resource = Resource()
    resource.metadata.name = name
    resource.policy.rules.add(name=rule, effect=POLICY_EFFECT_ALLOW)
    return resource


async def eventually(holds: Callable[[], object]) -> None:
    """Return once `holds()` (or its awaited value) is true. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = holds()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.05)


async def greet(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, tunnel.CloudFrame]:
    """An open session; its Welcome has been read."""
    call = channel.stream_stream(SESSION, response_deserializer=tunnel.CloudFrame.FromString)()
    await call.write(tunnel.NodeFrame(hello=tunnel.Hello()).SerializeToString())
    welcome = await call.read()
    assert welcome.WhichOneof("frame") == "welcome"
    return call


async def ending(call: grpc.aio.StreamStreamCall[bytes, tunnel.CloudFrame]) -> tuple[list[str], str]:
    """Frames until the end, and the error code that the control plane gave."""
    frames = []
    try:
        while (frame := await call.read()) is not grpc.aio.EOF:
            frames.append(str(frame.WhichOneof("frame")))
    except grpc.aio.AioRpcError as error:
        detail = dict(error.trailing_metadata() or ()).get(DETAIL_KEY, b"")
        return frames, bytes(detail).decode()  # type: ignore[arg-type]  # a -bin key carries bytes
    return frames, ""


async def joined(plane: RunningControlPlane, folder: Path) -> Credentials:
    await plane.create_tenant()
    return (await plane.join(folder)).credentials


async def test_a_second_session_of_a_node_ends_the_first(tmp_path: Path) -> None:
    """At most one live session per node: a half-dead connection must not keep a node out."""
    async with running_control_plane(tmp_path / "cp") as plane:
        credentials = await joined(plane, tmp_path / "node")
        async with open_channel(plane.tunnel_address, credentials) as channel:
            first = await greet(channel)
            second = await greet(channel)

            assert "session.superseded" in (await ending(first))[1]
            await second.write(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat(sequence=1)).SerializeToString())
            nodes = await plane.nodes.ListNodes(admin.ListNodesRequest(), metadata=plane.metadata)
            assert nodes.nodes[0].liveness == admin.LIVENESS_LIVE


async def test_a_control_plane_that_stops_drains_its_sessions(tmp_path: Path) -> None:
    """Nodes are told to come back, instead of finding out by silence."""
    async with running_control_plane(tmp_path / "cp") as plane:
        credentials = await joined(plane, tmp_path / "node")
        channel = open_channel(plane.tunnel_address, credentials)
        call = await greet(channel)

    frames, detail = await ending(call)
    await channel.close()

    assert frames == ["drain"]
    assert "session.draining" in detail


async def test_a_frame_that_is_not_due_ends_the_session_with_its_reason(tmp_path: Path) -> None:
    """Garbage after a valid handshake is answered, not tolerated."""
    async with running_control_plane(tmp_path / "cp") as plane:
        credentials = await joined(plane, tmp_path / "node")
        async with open_channel(plane.tunnel_address, credentials) as channel:
            call = await greet(channel)
            await call.write(tunnel.NodeFrame(hello=tunnel.Hello()).SerializeToString())

            assert "session.frame_unexpected" in (await ending(call))[1]


@pytest.mark.needs("model", "embedder")
async def test_a_node_comes_back_by_itself_and_catches_up(tmp_path: Path) -> None:
    """The control plane is restarted, with a revision that the node has not seen: nobody touches the node."""
    async with Site(tmp_path) as site:
        await site.apply(policy("first"))
        await site.converged()
        await site.stop_control_plane()
        running = await site.restart()
        assert running.activation.running().revision == 1, "last known good runs with the control plane gone"
        await site.start_control_plane()
        await site.apply(policy("second"))
        await site.converged()

        assert set(running.activation.running().policies) == {"first", "second"}
