"""The node's end of the tunnel: a thin shell around NodeSession that dials, sends what the gate sealed, and reads.

Upstream bytes go through identity serialisers: what the sealer returned is what is sent, byte for byte.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import FaosError, IntegrityError, InvalidError, UnavailableError
from tunnel import session
from tunnel.backoff import Backoff
from tunnel.egress import Sealer
from tunnel.error_mapping import DETAIL_KEY, from_rpc_error
from tunnel.errors import BLOB_UNKNOWN, CONTROL_PLANE_UNREACHABLE, FRAME_UNEXPECTED
from tunnel.tls import CLIENT_OPTIONS, Credentials

log = logging.getLogger(__name__)

DOOR = "tunnel"
SESSION = "/faos.tunnel.v1.Tunnel/Session"
GET_BLOB = "/faos.tunnel.v1.Tunnel/GetBlob"
ENROLL = "/faos.tunnel.v1.Enrollment/Enroll"
DIAL_TIMEOUT_S = 20.0
TICK_S = 0.5
MAX_BLOB_BYTES = 4 * 1024 * 1024

Call = grpc.aio.StreamStreamCall[bytes, bytes]
Parsed = TypeVar("Parsed", bound=Message)


class NodeSide(Protocol):
    """What the tunnel needs from the node."""

    def hello(self) -> tunnel.Hello:
        """All that the control plane needs to resume."""

    def heartbeat(self, sequence: int) -> tunnel.NodeHeartbeat: ...

    async def offered(self, offer: tunnel.ConfigOffer) -> None:
        """Take an offer; returns at once."""

    async def next_status(self) -> tunnel.ApplyStatus:
        """The next status to report. Cancel-safe: a status that was not returned is returned by the next call."""

    def connected(self, is_connected: bool) -> None: ...


def open_channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    """One connection of its own. The caller closes it."""
    return grpc.aio.secure_channel(
        address, credentials.for_client(), options=CLIENT_OPTIONS, compression=grpc.Compression.NoCompression
    )


class BlobFetcher:
    """Fetches blobs over whatever session is up. Made before the client, which it is handed to."""

    def __init__(self) -> None:
        self.link: _Link | None = None

    async def get(self, sha256: bytes) -> bytes:
        """Raises UnavailableError (no session, or it broke), NotFoundError, IntegrityError (not that blob)."""
        if self.link is None:
            raise UnavailableError(CONTROL_PLANE_UNREACHABLE, address="", details="no session is up", timeout_s=0)
        return await self.link.get_blob(sha256)


class TunnelClient:
    """Keeps one session up for as long as it runs: dials, and dials again with back-off. A supervised service.

    It is ready at once: a site works with its cloud gone.
    """

    name = "tunnel"

    def __init__(
        self,
        addresses: Sequence[str],
        credentials: Callable[[], Credentials],
        *,
        sealer: Sealer,
        node: NodeSide,
        blobs: BlobFetcher | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.ready = asyncio.Event()
        self._addresses = addresses
        self._credentials = credentials
        self._sealer = sealer
        self._node = node
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._blobs = blobs or BlobFetcher()

    async def run(self) -> None:
        self.ready.set()
        attempt = 0
        while True:
            address = self._addresses[attempt % len(self._addresses)]
            attempt += 1
            began_s = self._clock.monotonic_s()
            retry_after_s = await self._one_session(address)
            lasted_s = self._clock.monotonic_s() - began_s
            await self._clock.sleep(self._backoff.next_delay_s(lasted_s=lasted_s, retry_after_s=retry_after_s))

    async def _one_session(self, address: str) -> float:
        """Run one session to its end; seconds that the control plane asked to stay away."""
        try:
            async with open_channel(address, self._credentials()) as channel:
                self._blobs.link = _Link(channel, address, self._sealer, self._node, self._clock)
                await self._blobs.link.run()
        except _SessionEndedError as ended:
            log.warning("session.ended", extra={names.ADDRESS: address, names.CODE: ended.error.code.code})
            return ended.retry_after_s
        except FaosError as error:
            log.warning("session.failed", extra={names.ADDRESS: address, names.CODE: error.code.code})
        finally:
            self._blobs.link = None
            self._node.connected(False)
        return 0.0


class _SessionEndedError(Exception):
    def __init__(self, error: FaosError, retry_after_s: float) -> None:
        self.error = error
        self.retry_after_s = retry_after_s


class _Link:
    """One channel with one session on it."""

    def __init__(self, channel: grpc.aio.Channel, address: str, sealer: Sealer, node: NodeSide, clock: Clock) -> None:
        self._channel = channel
        self._address = address
        self._sealer = sealer
        self._node = node
        self._clock = clock
        self._machine = session.NodeSession(clock.monotonic_s())
        self._order = asyncio.Lock()  # leaves stand in the ledger in the order in which they are sent

    async def run(self) -> None:
        """Returns never; raises _SessionEndedError or a FaosError."""
        call: Call = self._channel.stream_stream(SESSION)()
        try:
            with _flattened():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(call), name="session.read")
                    group.create_task(self._tick(call), name="session.tick")
                    group.create_task(self._report(call), name="session.report")
                    await self._perform(call, self._machine.open())
        finally:
            call.cancel()

    async def get_blob(self, sha256: bytes) -> bytes:
        request = tunnel.GetBlobRequest(sha256=sha256, offset_bytes=0)
        raw = await self._sealer.seal(request, door=DOOR, destination=self._address, method=GET_BLOB)
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(GET_BLOB)
        data = bytearray()
        with _mapped(self._address):
            async for chunk in method(raw, timeout=60):
                _append(data, parsed(tunnel.BlobChunk, chunk))
        if hashlib.sha256(data).digest() != sha256:
            raise IntegrityError(BLOB_UNKNOWN, digest=sha256.hex())
        return bytes(data)

    async def _read(self, call: Call) -> None:
        with _mapped(self._address):
            async for raw in call:
                frame = parsed(tunnel.CloudFrame, raw)
                await self._perform(call, self._machine.receive(frame, self._clock.monotonic_s()))
        raise UnavailableError(
            CONTROL_PLANE_UNREACHABLE, address=self._address, details="it closed the stream", timeout_s=0
        )

    async def _tick(self, call: Call) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            await self._perform(call, self._machine.tick(self._clock.monotonic_s()))

    async def _report(self, call: Call) -> None:
        while True:
            await self._perform(call, self._machine.report(await self._node.next_status()))

    async def _perform(self, call: Call, effects: Sequence[session.NodeEffect]) -> None:
        for effect in effects:
            match effect:
                case session.SendHello():
                    await self._send(call, lambda: tunnel.NodeFrame(hello=self._node.hello()))
                case session.SendStatus(status):
                    await self._send(call, partial(tunnel.NodeFrame, apply_status=status))
                case session.SendHeartbeat(sequence):
                    await self._send(call, partial(self._beat, sequence))
                case session.Welcomed():
                    log.info("session.open", extra={names.ADDRESS: self._address})
                    self._node.connected(True)
                case session.Deliver(offer):
                    await self._node.offered(offer)
                case session.Close(error, retry_after_s):
                    raise _SessionEndedError(error, retry_after_s)

    def _beat(self, sequence: int) -> tunnel.NodeFrame:
        return tunnel.NodeFrame(heartbeat=self._node.heartbeat(sequence))

    async def _send(self, call: Call, make: Callable[[], Message]) -> None:
        async with self._order:
            raw = await self._sealer.seal(make(), door=DOOR, destination=self._address, method=SESSION)
            with _mapped(self._address):
                await call.write(raw)


def parsed(kind: type[Parsed], raw: bytes) -> Parsed:
    """Not as gRPC's deserialiser: that one logs what it cannot read and hands on None, which nobody expects.

    Raises InvalidError.
    """
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InvalidError(FRAME_UNEXPECTED, frame="what cannot be read", expected=kind.DESCRIPTOR.name) from error


def _append(data: bytearray, chunk: tunnel.BlobChunk) -> None:
    """Raises IntegrityError for a chunk out of place or a blob over MAX_BLOB_BYTES."""
    if chunk.offset_bytes != len(data) or chunk.total_bytes > MAX_BLOB_BYTES or len(data) > MAX_BLOB_BYTES:
        raise IntegrityError(BLOB_UNKNOWN, digest="(chunks out of order or too many)")
    data += chunk.data


@contextmanager
def _mapped(address: str) -> Iterator[None]:
    """Turns gRPC's errors into ours: what the server meant, or that it could not be reached."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise reached(error, address) from error
    except asyncio.InvalidStateError as error:  # written to a call that has ended
        raise UnavailableError(
            CONTROL_PLANE_UNREACHABLE, address=address, details="the stream has ended", timeout_s=0
        ) from error


def reached(error: grpc.aio.AioRpcError, address: str) -> FaosError:
    """The server's own error, or CONTROL_PLANE_UNREACHABLE when it was the connection that failed."""
    said = any(key == DETAIL_KEY for key, _ in error.trailing_metadata() or ())
    if said or error.code() is not grpc.StatusCode.UNAVAILABLE:
        return from_rpc_error(error)
    details = (error.details() or "no details").splitlines()[0]
    return UnavailableError(CONTROL_PLANE_UNREACHABLE, address=address, details=details, timeout_s=int(DIAL_TIMEOUT_S))


@contextmanager
def _flattened() -> Iterator[None]:
    """A task group of one session fails with one cause: raise that, not a group. A stop (ledger, defect) goes
    before the end of the session, which goes before what the connection said."""
    try:
        yield
    except BaseExceptionGroup as group:
        causes = list(_leaves(group))
        causes.sort(key=lambda cause: (not _is_stop(cause), not isinstance(cause, _SessionEndedError)))
        raise causes[0] from None


def _is_stop(cause: BaseException) -> bool:
    return not isinstance(cause, FaosError | _SessionEndedError)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
