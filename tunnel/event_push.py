"""The node's end of PushEvents: a thin shell around EventSender, beside the session and never in its way.

A stream is there while there are events, and for a moment after; what fails on it is tried again after a while, and
touches nothing else.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import grpc

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core import names
from faos_core.clock import Clock, SystemClock
from faos_core.errors import DeadlineError, FaosError
from tunnel.backoff import Backoff
from tunnel.client_calls import closed, flattened, is_cancelled, mapped, parsed
from tunnel.egress import Sealer
from tunnel.errors import EVENTS_UNANSWERED
from tunnel.events import MOST_BATCH_EVENTS, EventSender, Forget, Key, Renumber

log = logging.getLogger(__name__)

PUSH_EVENTS = "/faos.tunnel.v1.Tunnel/PushEvents"
LINGER_S = 0.1  # after a batch that was not full: what happens meanwhile goes together
IDLE_S = 10.0  # without events, before the stream is let go: an idle node costs its control plane none
ACK_S = 120.0  # without an ack for what is under way, before another stream is tried

Call = grpc.aio.StreamStreamCall[bytes, bytes]


class Events(Protocol):
    """The node's spool; see data_plane.events.spool. Everything durable that it returns may leave the node."""

    epoch: int  # of what this process makes
    changed: asyncio.Event  # set whenever there may be more

    async def after(self, key: Key, most: int) -> Sequence[tunnel.Event]:
        """The oldest durable events after this key, in order; at most so many."""

    async def forget(self, through: Key) -> None:
        """Everything up to and including this is durable elsewhere."""

    async def renumber(self, epoch: int) -> None:
        """What this process made, and makes from now on, is of this epoch."""


class EventPush:
    """Pushes what the spool holds over one link after the other: `run` on each, one at a time."""

    def __init__(self, events: Events, sealer: Sealer, *, door: str, clock: Clock | None = None) -> None:
        self._events = events
        self._sealer = sealer
        self._door = door
        self._clock = clock or SystemClock()
        self._sender = EventSender(events.epoch)
        self._ack_due_s = 0.0  # by the loop's clock
        self._one = asyncio.Lock()
        self._turn = asyncio.Lock()  # what an ack changes is not in the middle of changing when events are taken

    async def run(self, channel: grpc.aio.Channel, address: str) -> None:
        """Until it is cancelled. What was sent and not acknowledged by then is sent again by the next one."""
        backoff = Backoff()
        async with self._one:
            while True:
                began_s = self._clock.monotonic_s()
                try:
                    await self._until_due()
                    await self._one_stream(channel, address)
                    continue
                except FaosError as error:
                    if is_cancelled():
                        raise asyncio.CancelledError from error
                    log.warning("events.not_pushed", extra={names.ADDRESS: address, names.CODE: error.code.code})
                lasted_s = self._clock.monotonic_s() - began_s
                await self._clock.sleep(backoff.next_delay_s(lasted_s=lasted_s))

    async def _until_due(self) -> None:
        while True:
            self._events.changed.clear()
            if await self._events.after(self._sender.durable, 1):
                return
            await self._events.changed.wait()

    async def _one_stream(self, channel: grpc.aio.Channel, address: str) -> None:
        """Returns when there has been nothing to push for a while. Raises FaosError."""
        self._sender.open()
        self._wait_for_ack()
        with mapped(address):
            call: Call = channel.stream_stream(PUSH_EVENTS)()
        try:
            with flattened(), mapped(address):
                async with asyncio.TaskGroup() as group:
                    hearing = group.create_task(self._hear(call, address), name="events.hear")
                    await self._talk(call, address)
                    hearing.cancel()
        finally:
            call.cancel()

    async def _hear(self, call: Call, address: str) -> None:
        with mapped(address):
            async for raw in call:
                self._wait_for_ack()
                async with self._turn:
                    await self._acknowledged(parsed(tunnel.EventAck, raw))
                self._events.changed.set()
        raise closed(address, "it closed the stream")

    async def _acknowledged(self, ack: tunnel.EventAck) -> None:
        for effect in self._sender.acknowledged(ack):
            match effect:
                case Renumber(epoch):
                    log.error("events.renumbered", extra={names.SEQUENCE: epoch})
                    await self._events.renumber(epoch)
                    self._sender.renumbered(epoch)
                    await self._acknowledged(ack)
                case Forget(through):
                    await self._events.forget(through)

    async def _talk(self, call: Call, address: str) -> None:
        while True:
            self._events.changed.clear()
            batch = await self._next_batch()
            if batch:
                raw = await self._sealer.seal(
                    tunnel.EventBatch(events=batch), door=self._door, destination=address, method=PUSH_EVENTS
                )
                async with self._until_ack_is_due():
                    with mapped(address):
                        await call.write(raw)
            elif not await self._moved():
                return
            if len(batch) < MOST_BATCH_EVENTS:
                await self._clock.sleep(LINGER_S)

    async def _next_batch(self) -> list[tunnel.Event]:
        async with self._turn:
            if not self._sender.has_room:
                return []
            if self._sender.is_settled:
                self._wait_for_ack()
            return self._sender.take(await self._events.after(self._sender.sent, MOST_BATCH_EVENTS))

    async def _moved(self) -> bool:
        """Wait for an event or an ack; False when there has been neither for long, and nothing is under way.

        Raises DeadlineError when an ack is due for too long.
        """
        if not self._sender.is_settled:
            async with self._until_ack_is_due():
                await self._events.changed.wait()
            return True
        try:
            async with asyncio.timeout(IDLE_S):
                await self._events.changed.wait()
        except TimeoutError:
            return False
        return True

    def _wait_for_ack(self) -> None:
        """From now on, however many events are made meanwhile."""
        self._ack_due_s = asyncio.get_running_loop().time() + ACK_S

    @asynccontextmanager
    async def _until_ack_is_due(self) -> AsyncIterator[None]:
        """Raises DeadlineError."""
        late = DeadlineError(EVENTS_UNANSWERED, timeout_s=int(ACK_S))
        if asyncio.get_running_loop().time() >= self._ack_due_s:
            raise late
        try:
            async with asyncio.timeout_at(self._ack_due_s):
                yield
        except TimeoutError:
            raise late from None
