"""The node's end of the tunnel: a thin shell around NodeSession that dials, sends what the gate sealed, and reads.

Upstream bytes go through identity serialisers: what the sealer returned is what is sent, byte for byte.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import FaosError, IntegrityError, RetryError, SetupError, UnauthenticatedError, UnavailableError
from tunnel import client_calls, session
from tunnel.backoff import Backoff
from tunnel.client_calls import DIAL_TIMEOUT_S, SessionEndedError, closed, flattened, mapped, parsed
from tunnel.clock_difference import ClockDifference
from tunnel.egress import Sealer
from tunnel.errors import BLOB_UNKNOWN, CERTIFICATE_NOT_KEPT, CONTROL_PLANE_UNREACHABLE
from tunnel.event_push import EventPush, Events
from tunnel.route import Direct, Route
from tunnel.tls import CLIENT_OPTIONS, Credentials

log = logging.getLogger(__name__)

DOOR = "tunnel"
SESSION = "/faos.tunnel.v1.Tunnel/Session"
GET_BLOB = "/faos.tunnel.v1.Tunnel/GetBlob"
RENEW = "/faos.tunnel.v1.Tunnel/Renew"
RECOVER = "/faos.tunnel.v1.Tunnel/Recover"
ENROLL = "/faos.tunnel.v1.Enrollment/Enroll"
TICK_S = 0.5
HAND_OVER_S = 3.0  # that the old session has to end after the new one was welcomed
MAX_BLOB_BYTES = 4 * 1024 * 1024
MOST_PARTIAL_BLOBS = 4  # that were cut off and are kept, to be gone on with; beyond, the oldest is forgotten
BLOB_TIMEOUT_S = 60.0

Call = grpc.aio.StreamStreamCall[bytes, bytes]


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


class Certificates(Protocol):
    """The node's certificates over time; see data_plane.identity.certificates."""

    def for_dialling(self) -> Credentials: ...

    async def welcomed(self, used: Credentials) -> None:
        """A session opened with these."""

    async def refused(self, used: Credentials) -> bool:
        """The control plane does not honour these. Whether there are others to try."""

    async def due(self) -> None:
        """Return when it is time to renew. Cancel-safe."""

    async def renew(self, ask: Callable[[bytes], Awaitable[tunnel.RenewResponse]]) -> None:
        """Make a key, ask with its request, and keep the answer. Raises FaosError, OSError."""

    def recovery(self) -> Credentials | None:
        """What to recover with, when that must be."""

    async def recover(self, ask: Callable[[int, bytes], Awaitable[tunnel.RenewResponse]]) -> None:
        """As `renew`, with a counter."""


def open_channel(target: str, credentials: Credentials) -> grpc.aio.Channel:
    """One connection of its own. The caller closes it. target: host:port, or what a route made of it."""
    return grpc.aio.secure_channel(
        target, credentials.for_client(), options=CLIENT_OPTIONS, compression=grpc.Compression.NoCompression
    )


class BlobFetcher:
    """Fetches blobs over whatever session is up. Made before the client, which it is handed to.

    What was cut off is gone on with where it stopped, over the next session too.
    """

    def __init__(self) -> None:
        self.link: _Link | None = None
        self._partial: OrderedDict[bytes, bytearray] = OrderedDict()

    async def get(self, sha256: bytes) -> bytes:
        """Raises UnavailableError (no session, or it broke: ask again), DeadlineError, NotFoundError, IntegrityError
        (not that blob). Cancel-safe."""
        data = self._partial.pop(sha256, bytearray())
        is_resumed = bool(data)
        try:
            await self._fetch(sha256, data)
        except (RetryError, asyncio.CancelledError):
            self._keep(sha256, data)
            raise
        if hashlib.sha256(data).digest() == sha256:
            return bytes(data)
        if is_resumed:
            return await self.get(sha256)  # from its beginning: the two parts need not be of one blob
        raise IntegrityError(BLOB_UNKNOWN, digest=sha256.hex())

    async def _fetch(self, sha256: bytes, data: bytearray) -> None:
        if self.link is None:
            raise UnavailableError(CONTROL_PLANE_UNREACHABLE, address="", details="no session is up", timeout_s=0)
        await self.link.get_blob(sha256, data)

    def _keep(self, sha256: bytes, data: bytearray) -> None:
        if data:
            self._partial[sha256] = data
        while len(self._partial) > MOST_PARTIAL_BLOBS:
            self._partial.popitem(last=False)


class TunnelClient:
    """Keeps one session up for as long as it runs: dials, and dials again with back-off. A supervised service.

    It is ready at once: a site works with its cloud gone.
    """

    name = "tunnel"

    def __init__(
        self,
        addresses: Sequence[str],
        certificates: Certificates,
        *,
        sealer: Sealer,
        node: NodeSide,
        blobs: BlobFetcher | None = None,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        route: Route | None = None,
        events: Events | None = None,
    ) -> None:
        """events: what to push besides; None: nothing."""
        self.ready = asyncio.Event()
        self.clock_difference = ClockDifference()
        self.failure: FaosError | None = None  # why the latest session did not come up, or broke
        self._addresses = addresses
        self._route = route or Direct()
        self._certificates = certificates
        self._order = asyncio.Lock()  # a session's frames stand in the ledger in the order in which they are sent
        self._sealer = sealer
        self._node = node
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._blobs = blobs or BlobFetcher()
        self._push = EventPush(events, sealer, door=DOOR, clock=self._clock) if events else None

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
            await self._recover_if_expired(address)
            with flattened():
                async with asyncio.TaskGroup() as group:
                    await self._keep_open(address, group)
        except SessionEndedError as ended:
            self.failure = ended.error
            log.warning("session.ended", extra={names.ADDRESS: address, names.CODE: ended.error.code.code})
            return ended.retry_after_s
        except FaosError as error:
            self.failure = error if self._was_up() else await self._explained(address, error)
            code, issuer = self.failure.code.code, self.failure.fields.get("issuer", "")
            log.warning("session.failed", extra={names.ADDRESS: address, names.CODE: code, names.ISSUER: issuer})
        finally:
            self._blobs.link = None
            self._node.connected(False)
        return 0.0

    def _was_up(self) -> bool:
        return self._blobs.link is not None and self._blobs.link.welcomed.is_set()

    async def _explained(self, address: str, error: FaosError) -> FaosError:
        """Who never got as far as a session may stand before a device in between."""
        return await self._route.explain(address, error, self._certificates.for_dialling().ca_pem)

    async def _keep_open(self, address: str, group: asyncio.TaskGroup) -> None:
        """One session after the other without a gap, each with the certificate after. Raises as `_Link.run`."""
        link = await self._link(address)
        task = group.create_task(self._outcome(link), name="session")
        self._blobs.link = link
        while True:
            await _first(task, self._certificates.due())
            if task.done():
                raise task.result()
            if not link.welcomed.is_set() or not await self._renewed(link):
                await self._clock.sleep(TICK_S)
                continue
            after = await self._link(address)
            await link.mute()
            successor = group.create_task(self._outcome(after), name="session")
            await _first(successor, after.welcomed.wait())
            if successor.done():
                link.unmute()
                continue
            self._blobs.link = after
            group.create_task(link.hand_over(task), name="session.hand_over")
            link, task = after, successor

    async def _link(self, address: str) -> "_Link":
        credentials = self._certificates.for_dialling()
        target = await self._route.target(address)
        return _Link(
            address,
            target,
            credentials,
            self._certificates,
            self._sealer,
            self._node,
            self._clock,
            self._order,
            self._push,
            self.clock_difference,
        )

    async def _outcome(self, link: "_Link") -> Exception:
        """How a session ended."""
        try:
            await link.run()
        except UnauthenticatedError as error:
            with kept():
                if await self._certificates.refused(link.credentials):
                    log.warning("certificate.refused", extra={names.CODE: error.code.code})
            return error
        except (SessionEndedError, FaosError) as error:
            return error
        return UnavailableError(session.DRAINING)

    async def _renewed(self, link: "_Link") -> bool:
        """Whether there is a new certificate. What fails is tried again when `due` says so."""
        try:
            with kept():
                await self._certificates.renew(link.renew)
        except FaosError as error:
            log.warning("certificate.not_renewed", extra={names.CODE: error.code.code})
            return False
        return True

    async def _recover_if_expired(self, address: str) -> None:
        """Raises FaosError."""
        credentials = self._certificates.recovery()
        if credentials is None:
            return

        async def ask(counter: int, csr_der: bytes) -> tunnel.RenewResponse:
            request = tunnel.RecoverRequest(counter=counter, csr_der=csr_der)
            async with open_channel(await self._route.target(address), credentials) as channel, self._order:
                raw = await self._sealer.seal(request, door=DOOR, destination=address, method=RECOVER)
                return await _renewal(channel, RECOVER, raw, address)

        with kept():
            await self._certificates.recover(ask)


@contextmanager
def kept() -> Iterator[None]:
    """A disk that takes no certificate is a failure of this session: what runs at the site goes on."""
    try:
        yield
    except OSError as error:
        raise SetupError(CERTIFICATE_NOT_KEPT, reason=error.strerror or type(error).__name__) from error


async def _first(task: "asyncio.Task[Any]", other: Coroutine[Any, Any, Any]) -> None:
    """Return when either has ended; only the other is cancelled."""
    rival = asyncio.ensure_future(other)
    try:
        await asyncio.wait([task, rival], return_when=asyncio.FIRST_COMPLETED)
    finally:
        rival.cancel()


async def _renewal(channel: grpc.aio.Channel, method: str, raw: bytes, address: str) -> tunnel.RenewResponse:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with mapped(address):
        return parsed(tunnel.RenewResponse, await call(raw, timeout=DIAL_TIMEOUT_S))


class _Link:
    """One channel with one session on it."""

    def __init__(
        self,
        address: str,
        target: str,
        credentials: Credentials,
        certificates: Certificates,
        sealer: Sealer,
        node: NodeSide,
        clock: Clock,
        order: asyncio.Lock,
        push: EventPush | None,
        difference: ClockDifference,
    ) -> None:
        self._difference = difference
        self.credentials = credentials
        self.welcomed = asyncio.Event()
        self._channel = open_channel(target, credentials)
        self._certificates = certificates
        self._address = address
        self._call: Call | None = None
        self._group: asyncio.TaskGroup | None = None
        self._reporter: asyncio.Task[None] | None = None
        self._reporting = asyncio.Lock()
        self._leaves = False
        self._sealer = sealer
        self._node = node
        self._clock = clock
        self._machine = session.NodeSession(clock.monotonic_s())
        self._order = order
        self._push = push
        self._pushing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Returns never; raises SessionEndedError or a FaosError."""
        async with self._channel:
            await self._run()

    async def renew(self, csr_der: bytes) -> tunnel.RenewResponse:
        request = tunnel.RenewRequest(csr_der=csr_der)
        async with self._order:
            raw = await self._sealer.seal(request, door=DOOR, destination=self._address, method=RENEW)
        return await _renewal(self._channel, RENEW, raw, self._address)

    async def mute(self) -> None:
        """Report nothing more; a status that is on its way is sent first, the others wait for whoever reports next,
        as events do."""
        async with self._reporting:
            if self._reporter:
                self._reporter.cancel()
                self._reporter = None
        if self._pushing:
            self._pushing.cancel()
            self._pushing = None

    def unmute(self) -> None:
        if self._group and self._call and self._reporter is None:
            self._reporter = self._group.create_task(self._ending(self._report(self._call)), name="session.report")
            if self._push:
                push = self._ending(self._push.run(self._channel, self._address))
                self._pushing = self._group.create_task(push, name="session.push_events")

    async def hand_over(self, task: "asyncio.Task[Any]") -> None:
        """Let the control plane read to the end, then close. task: runs this link."""
        self._leaves = True
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if self._call:
                await self._call.done_writing()
        await asyncio.wait([task], timeout=HAND_OVER_S)
        task.cancel()

    async def _run(self) -> None:
        call: Call = self._channel.stream_stream(SESSION)()
        self._call = call
        try:
            with flattened():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._ending(self._read(call)), name="session.read")
                    group.create_task(self._ending(self._tick(call)), name="session.tick")
                    self._group = group
                    await self._perform(call, self._machine.open())
        finally:
            self._group = None
            call.cancel()

    async def _ending(self, work: Coroutine[Any, Any, None]) -> None:
        """With one of its tasks the session ends: from then on nothing may begin in its group."""
        try:
            await work
        except Exception:
            self._group = None
            raise

    async def get_blob(self, sha256: bytes, data: bytearray) -> None:
        """Append to `data` what it lacks of the blob. What arrived is in it, whatever is raised."""
        request = tunnel.GetBlobRequest(sha256=sha256, offset_bytes=len(data))
        raw = await self._sealer.seal(request, door=DOOR, destination=self._address, method=GET_BLOB)
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(GET_BLOB)
        with mapped(self._address):
            call = method(raw, timeout=BLOB_TIMEOUT_S)
        try:
            with mapped(self._address):
                async for chunk in call:
                    _append(data, parsed(tunnel.BlobChunk, chunk))
        finally:
            call.cancel()

    async def _read(self, call: Call) -> None:
        with mapped(self._address):
            async for raw in call:
                frame = parsed(tunnel.CloudFrame, raw)
                self._difference.heard(frame, self._clock.now())
                await self._perform(call, self._machine.receive(frame, self._clock.monotonic_s()))
        raise closed(self._address, "it closed the stream")

    async def _tick(self, call: Call) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            await self._perform(call, self._machine.tick(self._clock.monotonic_s()))

    async def _report(self, call: Call) -> None:
        while True:
            status = await self._node.next_status()
            async with self._reporting:
                await self._perform(call, self._machine.report(status))

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
                    with kept():
                        await self._certificates.welcomed(self.credentials)
                    self._node.connected(True)
                    self.welcomed.set()
                    self.unmute()
                case session.Deliver(offer) if self._leaves:
                    log.info("offer.of_old_session", extra={names.REVISION: offer.revision})
                case session.Deliver(offer):
                    await self._node.offered(offer)
                case session.Close(error, retry_after_s):
                    raise SessionEndedError(error, retry_after_s)

    def _beat(self, sequence: int) -> tunnel.NodeFrame:
        return tunnel.NodeFrame(heartbeat=self._node.heartbeat(sequence))

    async def _send(self, call: Call, make: Callable[[], Message]) -> None:
        if self._leaves:
            return
        async with self._order:
            raw = await self._sealer.seal(make(), door=DOOR, destination=self._address, method=SESSION)
            with mapped(self._address):
                async with asyncio.timeout(client_calls.WRITE_S):
                    await call.write(raw)


def _append(data: bytearray, chunk: tunnel.BlobChunk) -> None:
    """Raises IntegrityError for a chunk out of place or a blob over MAX_BLOB_BYTES."""
    size_bytes = len(data) + len(chunk.data)
    if chunk.offset_bytes != len(data) or max(size_bytes, chunk.total_bytes) > MAX_BLOB_BYTES:
        raise IntegrityError(BLOB_UNKNOWN, digest="(chunks out of order or too many)")
    data += chunk.data
