"""The node's end over real TLS, against a control plane that breaks off, or lies, at the worst moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.identity.authority import Authority
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.clock import SystemClock
from faos_core.errors import FaosError
from faos_core.ids import NodeIdentity, NodeName, SiteName, TenantName
from faos_core.lifecycle import running
from tests.patience import PATIENCE_S
from tunnel import client_calls
from tunnel.backoff import Backoff
from tunnel.client import TunnelClient
from tunnel.error_mapping import DETAIL_KEY
from tunnel.identity import certificate_request, key_pem, new_key
from tunnel.tls import Credentials

Context = grpc.aio.ServicerContext[Any, Any]
Ask = Callable[[bytes], Awaitable[tunnel.RenewResponse]]


class Soon(Backoff):
    """Dials again at once."""

    def next_delay_s(self, *, lasted_s: float, retry_after_s: float = 0.0) -> float:
        return 0.01


class Plain:
    """A gate that lets everything pass."""

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes:
        return message.SerializeToString()


class Node:
    """Has nothing to say but Hello and heartbeats."""

    def hello(self) -> tunnel.Hello:
        return tunnel.Hello(boot_id=b"boot")

    def heartbeat(self, sequence: int) -> tunnel.NodeHeartbeat:
        """More than a connection takes before somebody reads."""
        facts = tunnel.ConfigFacts(quarantined_manifest_sha256=[bytes(20_000_000)])
        return tunnel.NodeHeartbeat(sequence=sequence, config=facts)

    async def offered(self, offer: tunnel.ConfigOffer) -> None: ...

    async def next_status(self) -> tunnel.ApplyStatus:
        await asyncio.Event().wait()
        raise AssertionError

    def connected(self, is_connected: bool) -> None: ...


class OnePair:
    """The same certificate for ever; a renewal is due when the test says so."""

    def __init__(self, credentials: Credentials) -> None:
        self.is_due = asyncio.Event()
        self.expired = False
        self._credentials = credentials

    def for_dialling(self) -> Credentials:
        return self._credentials

    async def welcomed(self, used: Credentials) -> None: ...

    async def refused(self, used: Credentials) -> bool:
        return False

    async def due(self) -> None:
        await self.is_due.wait()

    async def renew(self, ask: Ask) -> None:
        self.is_due.clear()
        await ask(b"request")

    def recovery(self) -> Credentials | None:
        return self._credentials if self.expired else None

    async def recover(self, ask: Callable[[int, bytes], Awaitable[tunnel.RenewResponse]]) -> None:
        self.expired = False
        raise OSError(28, "No space left on device")


class Stream:
    """A session that has said Hello; it stays open until the test ends it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._ended: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()

    async def send(self, **frame: Any) -> None:
        await self.context.write(tunnel.CloudFrame(**frame))

    async def welcome(self, heartbeat_seconds: int = 3600) -> None:
        await self.send(welcome=tunnel.Welcome(heartbeat_seconds=heartbeat_seconds))

    def abort(self, *detail: bytes) -> None:
        self._ended.set_result(detail)

    async def serve(self) -> None:
        detail = tuple((DETAIL_KEY, each) for each in await self._ended)
        await self.context.abort(grpc.StatusCode.UNAVAILABLE, "", detail)


class ControlPlane:
    """Answers with the right certificate; what it says is up to the test."""

    def __init__(self) -> None:
        self.renewals: asyncio.Queue[None] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()

    async def next_stream(self) -> Stream:
        async with asyncio.timeout(PATIENCE_S):
            return await self._streams.get()

    def handlers(self) -> grpc.GenericRpcHandler:
        session = grpc.stream_stream_rpc_method_handler(
            self._session, tunnel.NodeFrame.FromString, tunnel.CloudFrame.SerializeToString
        )
        renew = grpc.unary_unary_rpc_method_handler(
            self._renew, tunnel.RenewRequest.FromString, tunnel.RenewResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler("faos.tunnel.v1.Tunnel", {"Session": session, "Renew": renew})

    async def _session(self, requests: AsyncIterator[tunnel.NodeFrame], context: Context) -> None:
        assert (await anext(requests)).WhichOneof("frame") == "hello"
        stream = Stream(context)
        self._streams.put_nowait(stream)
        await stream.serve()

    async def _renew(self, request: tunnel.RenewRequest, context: Context) -> tunnel.RenewResponse:
        self.renewals.put_nowait(None)
        await self.may_answer.wait()
        return tunnel.RenewResponse()


@asynccontextmanager
async def connected(folder: Path, **options: Any) -> AsyncIterator[tuple[ControlPlane, OnePair, TunnelClient]]:
    """A client that is dialling; that it ends by itself is raised here."""
    authority, plane = Authority.open(folder, SystemClock()), ControlPlane()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((plane.handlers(),))
    port = server.add_secure_port("127.0.0.1:0", authority.server_credentials(["127.0.0.1:1"]).for_server())
    await server.start()
    try:
        pair = OnePair(credentials_of(authority))
        client = TunnelClient([f"127.0.0.1:{port}"], pair, sealer=Plain(), node=Node(), backoff=Soon(), **options)
        async with running([client]):
            yield plane, pair, client
    finally:
        await server.stop(0)


def credentials_of(authority: Authority) -> Credentials:
    key = new_key()
    identity = NodeIdentity(TenantName("t"), SiteName("s"), NodeName("n"))
    certificate = authority.node_certificate(certificate_request(key), identity)
    return Credentials(certificate.public_bytes(Encoding.PEM), key_pem(key), authority.pem)


async def test_a_control_plane_that_drains_during_a_renewal_is_dialled_again(tmp_path: Path) -> None:
    """Every restart of a control plane meets a renewal somewhere: that node would never have come back."""
    async with connected(tmp_path) as (plane, pair, _):
        stream = await plane.next_stream()
        await stream.welcome()
        pair.is_due.set()
        await plane.renewals.get()

        await stream.send(drain=tunnel.Drain())

        await plane.next_stream()


async def test_a_connection_that_breaks_during_a_switch_is_dialled_again(tmp_path: Path) -> None:
    """Both sessions end at once, the old one first: there is none to go back to."""
    async with connected(tmp_path) as (plane, pair, _):
        plane.may_answer.set()
        old = await plane.next_stream()
        await old.welcome()
        pair.is_due.set()
        after = await plane.next_stream()

        old.abort()
        await asyncio.sleep(0.2)  # until the node has heard of it; nothing of it can be seen from here
        after.abort()

        await plane.next_stream()


@pytest.mark.parametrize("seconds", [2**62, -(2**62)])
async def test_a_time_that_is_none_ends_nothing(tmp_path: Path, seconds: int) -> None:
    """Whoever holds the control plane says what time it is, and must not end the node with it."""
    async with connected(tmp_path) as (plane, _, client):
        stream = await plane.next_stream()
        await stream.send(welcome=tunnel.Welcome(now=Timestamp(seconds=seconds), heartbeat_seconds=3600))
        stream.abort()

        await plane.next_stream()
        assert client.clock_difference.ahead_s == 0


@pytest.mark.parametrize("detail", [b"{", b"[]", b'{"code": 7, "what": []}', b"[" * 4000, b"\xff"])
async def test_an_error_that_cannot_be_read_is_an_error(tmp_path: Path, detail: bytes) -> None:
    """It is said by whoever answers at that address."""
    async with connected(tmp_path) as (plane, _, client):
        (await plane.next_stream()).abort(detail)

        await plane.next_stream()
        assert isinstance(client.failure, FaosError)


async def test_a_recovery_that_cannot_be_noted_is_tried_again(tmp_path: Path) -> None:
    """A full disk at the site ends no node: what runs there goes on, and it connects when there is room again."""
    async with connected(tmp_path) as (plane, pair, _):
        stream = await plane.next_stream()
        pair.expired = True
        stream.abort()

        await plane.next_stream()
        assert not pair.expired


async def test_a_control_plane_that_reads_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine may answer for its connection while it hangs itself; another address, or a restart, may do better."""
    monkeypatch.setattr(client_calls, "WRITE_S", 0.3)
    async with connected(tmp_path) as (plane, _, client):
        await (await plane.next_stream()).welcome(heartbeat_seconds=1)

        await plane.next_stream()
        assert client.failure is not None
        assert client.failure.code.code == "session.peer_takes_nothing"
