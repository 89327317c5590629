"""The control plane's end of the tunnel: one port, mutual TLS, a thin shell around CloudSession per stream.

What it decides nothing about it asks of two Protocols, which the control plane implements. One task ticks all
sessions; a session itself costs one coroutine.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import (
    ConflictError,
    FaosError,
    UnauthenticatedError,
    UnavailableError,
)
from faos_core.ids import NodeIdentity, parse_recovery_id
from tunnel.error_mapping import ErrorInterceptor
from tunnel.errors import BLOBS_BUSY, PEER_UNKNOWN, SESSION_SUPERSEDED
from tunnel.events import EventReceiver
from tunnel.interfaces import Context, Enrolments, EventLog, Fleet, Recorder, Renewals
from tunnel.live_session import RETIRE_S, LiveSession
from tunnel.offer_frame import serialised
from tunnel.open_call import OpenCall
from tunnel.push_window import PushWindow
from tunnel.tls import MAX_FRAME_BYTES, MAX_UPSTREAM_BYTES, Credentials, Peer, bind, peer_of, server_options

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024  # of a blob: what a cut connection costs at most
BLOBS_AT_ONCE = 4  # of one node, which asks for one after the other; more than one while it changes its connection
STOP_GRACE_S = 3.0
TICK_S, MOST_TICK_S = 0.5, 2.0  # between two looks at what sessions have to do; an eighth of a heartbeat in between
TICKED_AT_ONCE = 256


class TunnelServer:
    """Serves Enrollment and Tunnel on one port. A supervised service; `port` holds once it is ready."""

    name = "tunnel"

    def __init__(
        self,
        listen: str,
        credentials: Credentials,
        *,
        enrolments: Enrolments,
        renewals: Renewals,
        fleet: Fleet,
        events: EventLog,
        heartbeat_s: float = 15.0,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """listen: host:port, port 0 for any. recorder: is shown every request body as received."""
        self.ready = asyncio.Event()
        self.port = 0
        self._listen = listen
        self._credentials = credentials
        self._enrolments = enrolments
        self._renewals = renewals
        self._fleet = fleet
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._clock = clock or SystemClock()
        self._recorder = recorder or (lambda method, raw: None)
        self._live: dict[NodeIdentity, LiveSession] = {}  # the newest session of each node that was welcomed
        self._sessions: set[LiveSession] = set()  # these, those not welcomed yet, and those that are about to end
        self._calls: set[OpenCall] = set()  # what nodes have open besides their sessions
        self._blobs: Counter[NodeIdentity] = Counter()  # under way
        self._tasks: asyncio.TaskGroup | None = None  # while it runs
        self._window = PushWindow()

    async def run(self) -> None:
        options = server_options(max_receive_bytes=MAX_UPSTREAM_BYTES, max_send_bytes=MAX_FRAME_BYTES)
        server = grpc.aio.server(options=options, interceptors=[ErrorInterceptor()])
        server.add_generic_rpc_handlers(self._handlers())
        self.port = bind(server, self._listen, self._credentials.for_server(), setting="tunnel_listen")
        try:
            await server.start()
            log.info("tunnel.listening", extra={names.PORT: self.port})
            self.ready.set()
            async with asyncio.TaskGroup() as self._tasks:
                await self._tick_all(self._tasks)
        finally:
            self._tasks = None
            await asyncio.shield(self._stop(server))

    def is_live(self, identity: NodeIdentity) -> bool:
        live = self._live.get(identity)
        return live is not None and live.is_open

    def identities(self) -> frozenset[NodeIdentity]:
        """Nodes that have a stream or a call open here, welcomed or not."""
        return frozenset({each.identity for each in self._sessions} | {each.identity for each in self._calls})

    async def targets_changed(self, tenant: str) -> None:
        """Have the fleet asked again what the connected nodes of a tenant shall run, and that offered: soon, each on
        its own, so that one that does not listen holds up nobody."""
        for each in self._sessions:
            each.target_is_stale = True  # for those that are not in `_live` yet
        if self._tasks:
            self._tasks.create_task(self._tell(tenant, self._tasks))

    def make_room(self) -> None:
        """Somebody calls this process meanwhile: for a moment, what is told to all goes to few nodes at once."""
        self._window.make_room()

    async def cut(self, identity: NodeIdentity, error: FaosError) -> None:
        """End every stream of a node, welcomed or not, with this error."""
        for call in list(self._calls):
            if call.identity == identity:
                call.close(error)
        for each in list(self._sessions):
            if each.identity == identity:
                await each.close(error)

    def _handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        enroll = grpc.unary_unary_rpc_method_handler(
            self._enroll, self._parser("Enroll", tunnel.EnrollRequest), tunnel.EnrollResponse.SerializeToString
        )
        stream = grpc.stream_stream_rpc_method_handler(
            self._session, self._parser("Session", tunnel.NodeFrame), serialised
        )
        blob = grpc.unary_stream_rpc_method_handler(
            self._get_blob, self._parser("GetBlob", tunnel.GetBlobRequest), tunnel.BlobChunk.SerializeToString
        )
        renew = grpc.unary_unary_rpc_method_handler(
            self._renew, self._parser("Renew", tunnel.RenewRequest), tunnel.RenewResponse.SerializeToString
        )
        recover = grpc.unary_unary_rpc_method_handler(
            self._recover, self._parser("Recover", tunnel.RecoverRequest), tunnel.RenewResponse.SerializeToString
        )
        push = grpc.stream_stream_rpc_method_handler(
            self._push_events, self._parser("PushEvents", tunnel.EventBatch), tunnel.EventAck.SerializeToString
        )
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Session": stream,
            "PushEvents": push,
            "GetBlob": blob,
            "Renew": renew,
            "Recover": recover,
        }
        return (
            grpc.method_handlers_generic_handler("faos.tunnel.v1.Enrollment", {"Enroll": enroll}),
            grpc.method_handlers_generic_handler("faos.tunnel.v1.Tunnel", methods),
        )

    def _parser(self, method: str, message: Any) -> Callable[[bytes], Any]:
        def parse(raw: bytes) -> Any:
            self._recorder(method, raw)
            return message.FromString(raw)

        return parse

    async def _enroll(self, request: tunnel.EnrollRequest, context: Context) -> tunnel.EnrollResponse:
        return await self._enrolments.enroll(request, peer_of(context))

    async def _renew(self, request: tunnel.RenewRequest, context: Context) -> tunnel.RenewResponse:
        return await self._renewals.renew(await self._identified(context), request)

    async def _recover(self, request: tunnel.RecoverRequest, context: Context) -> tunnel.RenewResponse:
        peer = peer_of(context)
        try:
            parse_recovery_id(peer.uri)
        except FaosError as error:
            raise UnauthenticatedError(PEER_UNKNOWN, reason="Its certificate is not for recovery.") from error
        return await self._renewals.recover(request, peer)

    async def _session(self, requests: AsyncIterator[tunnel.NodeFrame], context: Context) -> None:
        peer = peer_of(context)
        identity = _node_of(peer)
        await self._fleet.authorise(identity, peer)
        live = LiveSession(identity, peer, context, self._fleet, self._clock, self._heartbeat_s, self._welcomed)
        self._sessions.add(live)
        try:
            await live.serve(requests, heard=self._window.leave)
        finally:
            self._sessions.discard(live)
            self._window.leave(live)
            if self._live.get(identity) is live:
                del self._live[identity]
                await asyncio.shield(self._fleet.left(identity))

    async def _welcomed(self, live: LiveSession) -> None:
        """It takes the place of the node's session before. One with another certificate may first hand in what it has
        under way; one with the same is a connection that broke."""
        before = self._live.get(live.identity)
        self._live[live.identity] = live
        if before is None or before is live:
            return
        if before.peer == live.peer:
            await before.close(ConflictError(SESSION_SUPERSEDED))
            return
        before.retire()
        for call in self._calls:
            if (call.identity, call.peer) == (before.identity, before.peer):
                call.retired_at_s = self._clock.monotonic_s()

    async def _get_blob(self, request: tunnel.GetBlobRequest, context: Context) -> None:
        await self._run_call("GetBlob", context, lambda call: self._send_blob(call, request, context))

    async def _send_blob(self, call: OpenCall, request: tunnel.GetBlobRequest, context: Context) -> None:
        """One of a node's few: an answer that nobody reads stays here for as long as its connection."""
        if self._blobs[call.identity] >= BLOBS_AT_ONCE:
            raise UnavailableError(BLOBS_BUSY, most=BLOBS_AT_ONCE)
        self._blobs[call.identity] += 1
        try:
            data = await self._fleet.blob(call.identity, request.sha256)
            for at in range(request.offset_bytes, len(data), CHUNK_BYTES):
                chunk = tunnel.BlobChunk(offset_bytes=at, data=data[at : at + CHUNK_BYTES], total_bytes=len(data))
                await context.write(chunk)
        finally:
            self._blobs[call.identity] -= 1
            if not self._blobs[call.identity]:
                del self._blobs[call.identity]

    async def _push_events(self, requests: AsyncIterator[tunnel.EventBatch], context: Context) -> None:
        await self._run_call("PushEvents", context, lambda call: self._take_events(call, requests, context))

    async def _take_events(self, call: OpenCall, requests: AsyncIterator[tunnel.EventBatch], context: Context) -> None:
        """One batch at a time: what the node sent meanwhile waits in the connection, and is within its credit."""
        for other in self._calls - {call}:
            if (other.identity, other.method) == (call.identity, call.method):
                other.close(ConflictError(SESSION_SUPERSEDED))
        receiver = EventReceiver(await self._events.durable(call.identity))
        await context.write(receiver.ack())
        async for batch in requests:
            receiver.received(batch)
            receiver.durable = await self._events.record(call.identity, batch.events)
            await context.write(receiver.ack())

    async def _run_call(self, method: str, context: Context, work: Callable[[OpenCall], Awaitable[None]]) -> None:
        """A call that `cut` ends, from before it was authorised on."""
        peer = peer_of(context)
        call = OpenCall(_node_of(peer), peer, method, context)

        async def serve() -> None:
            await self._fleet.authorise(call.identity, peer)
            with suppress(grpc.aio.InternalError):  # the node is gone
                await work(call)

        self._calls.add(call)
        try:
            await call.run(serve())
        finally:
            self._calls.discard(call)

    async def _identified(self, context: Context) -> NodeIdentity:
        """Who calls, bound to this RPC. Raises UnauthenticatedError."""
        peer = peer_of(context)
        identity = _node_of(peer)
        await self._fleet.authorise(identity, peer)
        return identity

    async def _tell(self, tenant: str, tasks: asyncio.TaskGroup) -> None:
        told = [live for live in self._live.values() if live.identity.tenant == tenant]
        for live in told:
            await self._window.enter(live)
            tasks.create_task(live.surely(self._desire(live)))
        log.info("targets.told", extra={names.TENANT: tenant, names.SIZE: len(told)})

    async def _tick_all(self, tasks: asyncio.TaskGroup) -> None:
        """Sessions that have nothing to do, almost all of them, cost no task."""
        while True:
            await self._clock.sleep(min(max(TICK_S, self._heartbeat_s / 8), MOST_TICK_S))
            for number, live in enumerate(list(self._sessions), start=1):
                if effects := live.due():
                    tasks.create_task(live.surely(live.perform(effects)))
                if number % TICKED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            for call in list(self._calls):
                if call.retired_at_s is not None and self._clock.monotonic_s() - call.retired_at_s > RETIRE_S:
                    call.close(ConflictError(SESSION_SUPERSEDED))

    async def _desire(self, live: LiveSession) -> None:
        if not await live.desire(await self._fleet.target(live.identity)):
            self._window.leave(live)  # nothing to answer

    async def _stop(self, server: grpc.aio.Server) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S):
                await asyncio.gather(*(live.surely(live.drain()) for live in list(self._sessions)))
        await server.stop(STOP_GRACE_S)


def _node_of(peer: Peer) -> NodeIdentity:
    """Raises UnauthenticatedError."""
    try:
        return NodeIdentity.parse(peer.uri)
    except FaosError as error:
        raise UnauthenticatedError(PEER_UNKNOWN, reason="Its certificate names no node.") from error
