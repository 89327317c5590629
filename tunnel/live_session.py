"""One stream of one node at the control plane: a thin shell around a CloudSession."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import grpc

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import ConflictError, DeadlineError, FaosError, InternalError, UnavailableError
from faos_core.ids import NodeIdentity
from faos_core.timestamps import timestamp
from tunnel import session
from tunnel.error_mapping import INTERNAL
from tunnel.errors import PEER_TAKES_NOTHING, SESSION_SUPERSEDED
from tunnel.interfaces import Context, Fleet
from tunnel.offer_frame import EncodedOffer, offer_frame
from tunnel.open_call import OpenCall
from tunnel.tls import Peer

log = logging.getLogger(__name__)

RETIRE_S = 5.0  # that a session goes on beside the one with the node's next certificate
WRITE_S = 30.0  # that a node may take nothing of what it is sent


class LiveSession:
    """One open stream."""

    def __init__(
        self,
        identity: NodeIdentity,
        peer: Peer,
        context: Context,
        fleet: Fleet,
        clock: Clock,
        heartbeat_s: float,
        welcomed: "Callable[[LiveSession], Awaitable[None]]",
    ) -> None:
        self.identity = self._identity = identity
        self.peer = peer
        self.target_is_stale = True  # until it was asked for, and again when it may have changed since
        self._welcomed = welcomed
        self._retired_at_s: float | None = None
        self._context = context
        self._fleet = fleet
        self._clock = clock
        self._id = secrets.token_bytes(8)
        self._machine = session.CloudSession(self._id, heartbeat_s, clock.monotonic_s())
        self._order = asyncio.Lock()
        self._call = OpenCall(identity, peer, "Session", context)
        self._known: frozenset[bytes] = frozenset()  # bodies that the node has
        self._offered: EncodedOffer | None = None  # the last one

    @property
    def is_open(self) -> bool:
        return self._machine.phase is session.Phase.OPEN

    async def serve(self, requests: AsyncIterator[tunnel.NodeFrame], *, heard: "Callable[[LiveSession], None]") -> None:
        """Until the node leaves; aborts the call when the machine or `close` ends the session."""

        async def listen() -> None:
            async for frame in requests:
                heard(self)
                await self._receive(frame)
                if self._call.closed_by:
                    break

        await self._call.run(listen())

    async def desire(self, target: session.Target | None) -> bool:
        """Whether there was anything to do."""
        effects = self._machine.desire(None if self._retired_at_s else target, self._clock.monotonic_s())
        await self.perform(effects)
        return bool(effects)

    def due(self) -> Sequence[session.CloudEffect]:
        """What is to be done by now."""
        now_s = self._clock.monotonic_s()
        if self._retired_at_s is not None and now_s - self._retired_at_s > RETIRE_S:
            return [session.Close(ConflictError(SESSION_SUPERSEDED))]
        return self._machine.tick(now_s)

    def retire(self) -> None:
        """Offer nothing more, hear what is under way, and end when the node does, or soon."""
        self._retired_at_s = self._clock.monotonic_s()
        self._machine.target = None

    async def surely(self, work: Awaitable[None]) -> None:
        """What fails ends this session and nothing else: the node comes back, and is asked and told afresh."""
        try:
            await work
        except FaosError as error:
            log.warning("session.failed", extra={names.NODE: self._identity.node, names.CODE: error.code.code})
            await self.close(error)
        except Exception:  # a supervisor, of one session
            log.exception("session.defect", extra={names.NODE: self._identity.node})
            await self.close(InternalError(INTERNAL))

    async def drain(self) -> None:
        await self._write(tunnel.CloudFrame(drain=tunnel.Drain(retry_after_seconds=1)))
        await self.close(UnavailableError(session.DRAINING))

    async def close(self, error: FaosError) -> None:
        """End the stream with this error. Idempotent."""
        self._machine.phase = session.Phase.CLOSED
        self._call.close(error)

    async def _receive(self, frame: tunnel.NodeFrame) -> None:
        if frame.WhichOneof("frame") == "hello" and self._machine.phase is session.Phase.GREETING:
            self._machine.refused = await self._fleet.greeted(self._identity, frame.hello, self.peer)
            while self.target_is_stale:
                self.target_is_stale = False
                self._machine.target = await self._fleet.target(self._identity)
            self._known = frozenset(frame.hello.known_sha256)
            frame.hello.ClearField("known_sha256")  # the machine keeps the frame for as long as the node is connected
        await self.perform(self._machine.receive(frame, self._clock.monotonic_s()))

    async def perform(self, effects: Sequence[session.CloudEffect]) -> None:
        for effect in effects:
            match effect:
                case session.Greet():
                    await self._welcomed(self)
                    await self._write(tunnel.CloudFrame(welcome=self._welcome()))
                case session.Offer(target, nonce):
                    await self._offer(target, nonce)
                case session.HeldBack(target, kinds):
                    if self._machine.shows(effect):
                        await self._fleet.held_back(self._identity, target, kinds)
                case session.Record(status):
                    self._learn(status)
                    await self._fleet.reported(self._identity, status, shown=self._machine.shows(effect))
                case session.Progress(heartbeat):
                    await self._fleet.progressed(self._identity, heartbeat)
                case session.Beat(sequence):
                    beat = tunnel.CloudHeartbeat(sent_at=timestamp(self._clock.now()), sequence=sequence)
                    await self._write(tunnel.CloudFrame(heartbeat=beat))
                case session.Close(error):
                    await self.close(error)

    def _learn(self, status: tunnel.ApplyStatus) -> None:
        """A node keeps the bodies of what is last known good, and those of nothing else for long."""
        offered = self._offered
        if offered and (status.state, status.revision) == (tunnel.APPLY_STATE_HEALTHY, offered.revision):
            self._known = offered.digests

    async def _offer(self, target: session.Target, nonce: bytes) -> None:
        self._offered = await self._fleet.offer(self._identity, target, self._known)
        if self._offered is None:
            await self._withdraw(nonce)
            return
        log.debug("config.offered", extra={names.NODE: self._identity.node, names.REVISION: target.revision})
        await self._write(offer_frame(self._offered, nonce))

    async def _withdraw(self, nonce: bytes) -> None:
        target = None if self._retired_at_s is not None else await self._fleet.target(self._identity)
        await self.perform(self._machine.withdraw(nonce, target, self._clock.monotonic_s()))

    async def _write(self, frame: tunnel.CloudFrame | bytes) -> None:
        """Raises DeadlineError: what waits for a node that reads nothing would grow without end."""
        try:
            async with asyncio.timeout(WRITE_S), self._order:
                if self._context.cancelled() or self._context.done():
                    return
                with suppress(grpc.aio.InternalError):  # gone since we looked: serve() ends it, and nobody else must
                    await self._context.write(frame)
        except TimeoutError:
            raise DeadlineError(PEER_TAKES_NOTHING, timeout_s=round(WRITE_S)) from None

    def _welcome(self) -> tunnel.Welcome:
        heartbeat_seconds = max(1, round(self._machine.heartbeat_s))
        return tunnel.Welcome(
            session_id=self._id, now=timestamp(self._clock.now()), heartbeat_seconds=heartbeat_seconds
        )
