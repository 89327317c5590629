"""The shell around EventSender: no event is forgotten unsent, a stream that is not answered is given up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.patience import PATIENCE_S
from tunnel import event_push
from tunnel.client_calls import closed
from tunnel.event_push import EventPush
from tunnel.events import CREDIT_BYTES, CREDIT_EVENTS, Key, key_of


class Plain:
    """A gate that lets everything pass."""

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes:
        return message.SerializeToString()


class Spool:
    """Two events of this process; the database is away for the first renumbering."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.changed = asyncio.Event()
        self.keys = [Key(epoch, 1), Key(epoch, 2)]
        self.failures: list[Exception] = [closed("", "the database is away")]

    async def after(self, key: Key, most: int) -> Sequence[tunnel.Event]:
        return [tunnel.Event(epoch=each.epoch, sequence=each.sequence) for each in self.keys if each > key][:most]

    async def forget(self, through: Key) -> None:
        self.keys = [each for each in self.keys if each > through]

    async def renumber(self, epoch: int) -> None:
        if self.failures:
            raise self.failures.pop()
        self.keys = [Key(epoch, each.sequence) for each in self.keys]


class Call:
    """One stream; `answer` says what a batch is answered with, None for nothing."""

    def __init__(self, first: Key, answer: Callable[[Key], Key | None], write: Callable[[], Awaitable[None]]) -> None:
        self.arrived: list[Key] = []
        self._acks: asyncio.Queue[Key] = asyncio.Queue()
        self._acks.put_nowait(first)
        self._answer = answer
        self._write = write

    async def write(self, raw: bytes) -> None:
        self.arrived += map(key_of, tunnel.EventBatch.FromString(raw).events)
        await self._write()
        if key := self._answer(self.arrived[-1]):
            self._acks.put_nowait(key)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            epoch, sequence = await self._acks.get()
            credit = {"credit_events": CREDIT_EVENTS, "credit_bytes": CREDIT_BYTES}
            yield tunnel.EventAck(epoch=epoch, sequence=sequence, **credit).SerializeToString()

    def cancel(self) -> None: ...


async def at_once() -> None: ...


class Channel:
    def __init__(
        self, first: Key, answer: Callable[[Key], Key | None], write: Callable[[], Awaitable[None]] = at_once
    ) -> None:
        self.calls: list[Call] = []
        self._made = (first, answer, write)

    def stream_stream(self, _method: str) -> Callable[[], Call]:
        return self._call

    def _call(self) -> Call:
        self.calls.append(Call(*self._made))
        return self.calls[-1]


@asynccontextmanager
async def pushing(spool: Spool, channel: Channel) -> AsyncIterator[None]:
    push = EventPush(spool, Plain(), door="tunnel")
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_S):
        task = group.create_task(push.run(cast(Any, channel), "cp:1"))
        yield
        task.cancel()


async def test_a_renumbering_that_failed_forgets_nothing() -> None:
    """A restored node whose database blinks in this moment would lose all that it had made, without a word."""
    spool = Spool(4)
    channel = Channel(Key(4, 120), lambda key: key)

    async with pushing(spool, channel):
        while spool.keys:
            await asyncio.sleep(0.01)

    assert [each.arrived for each in channel.calls] == [[], [Key(5, 1), Key(5, 2)]]
    assert not spool.failures


@pytest.mark.parametrize("stands_still", ["acks", "the connection"])
async def test_a_stream_that_is_not_answered_is_given_up(monkeypatch: pytest.MonkeyPatch, stands_still: str) -> None:
    """Also at a site where more happens all the time, and where the other side does not even read."""
    monkeypatch.setattr(event_push, "ACK_S", 0.2)
    monkeypatch.setattr(event_push, "LINGER_S", 0.01)
    spool = Spool(1)
    write = asyncio.Event().wait if stands_still == "the connection" else at_once
    channel = Channel(Key(0, 0), lambda _: None, cast(Any, write))

    async with pushing(spool, channel):
        while len(channel.calls) < 2:
            spool.changed.set()
            await asyncio.sleep(0.01)

    assert channel.calls[0].arrived == spool.keys
