"""PushEvents of both ends as pure state machines: no I/O, decisions only.

An event's key is (epoch, sequence); a node sends in the order of keys. The control plane says first, and after each
durable write, up to which key it has everything (cumulative), and how much beyond that may be under way (credit).
After a reconnect the node goes on behind what the first ack says. What is sent twice is written once.
Source: DESIGN section 5.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import InvalidError, LimitError
from tunnel.errors import EVENTS_OVER_CREDIT, FRAME_UNEXPECTED

CREDIT_EVENTS = 1024
CREDIT_BYTES = 256 * 1024
MOST_BATCH_EVENTS = 256
MOST_BATCH_BYTES = 64 * 1024
MOST_NUMBER = 2**63 - 1  # that a database takes
MOST_EPOCH = 2**62  # in an ack: whoever holds the control plane must not make a node run out of numbers


class Key(NamedTuple):
    """Of an event, in the order in which events are sent."""

    epoch: int
    sequence: int


BEGIN = Key(0, 0)


def key_of(event: tunnel.Event) -> Key:
    return Key(event.epoch, event.sequence)


# The node's side.


@dataclass(frozen=True, slots=True)
class Forget:
    """Everything up to and including this key is durable at the control plane."""

    through: Key


@dataclass(frozen=True, slots=True)
class Renumber:
    """The control plane has events of the present epoch that this process never sent: the node was restored from a
    backup. Make durable that what this process made, and makes, is of this epoch instead; then tell `renumbered`, and
    hand in the same ack again. Until then nothing has changed."""

    epoch: int


SenderEffect = Forget | Renumber


@dataclass(slots=True)
class EventSender:
    """The node's side, for the life of a process: `open` for each stream, then `take` and `acknowledged` as it goes.

    `sent`: events after this key are due on the present stream.
    """

    epoch: int  # of what this process makes
    sent: Key = BEGIN
    durable: Key = BEGIN
    _ever_sent: Key = BEGIN
    _is_open: bool = False  # the first ack is there
    _credit_events: int = 0
    _credit_bytes: int = 0
    _under_way: deque[tuple[Key, int]] = field(default_factory=deque)  # with sizes in bytes
    _bytes_under_way: int = 0

    def open(self) -> None:
        """A new stream: nothing is under way on it, and nothing may be before its first ack."""
        self._is_open = False
        self._under_way.clear()
        self._bytes_under_way = 0

    @property
    def has_room(self) -> bool:
        return self._is_open and len(self._under_way) < self._credit_events

    @property
    def is_settled(self) -> bool:
        """Everything that this stream sent is durable."""
        return self._is_open and not self._under_way

    def take(self, due: Iterable[tunnel.Event]) -> list[tunnel.Event]:
        """Those of the events after `sent`, in order, that may be sent now as one batch; under way from now on.

        With nothing under way one event goes whatever its size: a small credit must not stop it for ever.
        """
        taken: list[tunnel.Event] = []
        batch_bytes = 0
        for event in due:
            size = event.ByteSize()
            over = self._bytes_under_way + size > self._credit_bytes or batch_bytes + size > MOST_BATCH_BYTES
            if not self.has_room or len(taken) == MOST_BATCH_EVENTS or (over and self._under_way):
                break
            self._send(key_of(event), size)
            batch_bytes += size
            taken.append(event)
        return taken

    def acknowledged(self, ack: tunnel.EventAck) -> list[SenderEffect]:
        """Raises InvalidError for an ack that goes back, or that is for what was never sent."""
        key, is_first = Key(ack.epoch, ack.sequence), not self._is_open
        is_foreign = key.epoch >= self.epoch and key > self._ever_sent
        is_none = key.epoch >= MOST_EPOCH or key.sequence > MOST_NUMBER
        if is_none or (not is_first and (key < self.durable or is_foreign)):
            raise InvalidError(FRAME_UNEXPECTED, frame="an ack of what was not sent", expected="one of what was")
        if is_foreign:
            return [Renumber(key.epoch + 1)]
        self._credit_events, self._credit_bytes = ack.credit_events, ack.credit_bytes
        self._settle(key, is_first=is_first)
        return [Forget(key)]

    def renumbered(self, epoch: int) -> None:
        """What this process made, and makes, is of this epoch, durably."""
        self.epoch = epoch

    def _send(self, key: Key, size_bytes: int) -> None:
        self._under_way.append((key, size_bytes))
        self._bytes_under_way += size_bytes
        self.sent = key
        self._ever_sent = max(self._ever_sent, key)

    def _settle(self, key: Key, *, is_first: bool) -> None:
        while self._under_way and self._under_way[0][0] <= key:
            self._bytes_under_way -= self._under_way.popleft()[1]
        self.sent = key if is_first else max(self.sent, key)
        self.durable = key
        self._is_open = True


# The control plane's side.


@dataclass(slots=True)
class EventReceiver:
    """The control plane's side of one stream: `ack` first, then `received` and `ack` for each batch."""

    durable: Key  # everything of the node up to and including this
    _received: Key = BEGIN

    def received(self, batch: tunnel.EventBatch) -> None:
        """Raises InvalidError (no order, no key), LimitError (more than may be under way)."""
        size_bytes = batch.ByteSize()
        if len(batch.events) > CREDIT_EVENTS or size_bytes > CREDIT_BYTES:
            fields = {"most_events": CREDIT_EVENTS, "most_bytes": CREDIT_BYTES}
            raise LimitError(EVENTS_OVER_CREDIT, events=len(batch.events), size_bytes=size_bytes, **fields)
        for event in batch.events:
            key = key_of(event)
            if not (self._received < key and 1 <= key.epoch <= MOST_NUMBER and 1 <= key.sequence <= MOST_NUMBER):
                raise InvalidError(FRAME_UNEXPECTED, frame="an event out of order", expected="the next event")
            self._received = key

    def ack(self) -> tunnel.EventAck:
        return tunnel.EventAck(
            epoch=self.durable.epoch,
            sequence=self.durable.sequence,
            credit_events=CREDIT_EVENTS,
            credit_bytes=CREDIT_BYTES,
        )


@dataclass(frozen=True, slots=True)
class Intake:
    """What of a batch is to be written, and up to where everything is durable then."""

    fresh: tuple[tunnel.Event, ...]
    durable: Key
    lost_count: int  # events that the node made and that nobody will see


def intake(durable: Key, events: Sequence[tunnel.Event]) -> Intake:
    """The events that are new after `durable`, each once. Call it in the transaction that reads and writes `durable`.

    For events that are missing, because the node's spool was full or because this control plane was restored from a
    backup, one EventsDropped says how many, under the key of the last of them. Where they are of several epochs the
    number is the node's, and may count some that had arrived.
    """
    fresh: list[tunnel.Event] = []
    last = durable
    for event in events:
        if key_of(event) > last:
            fresh += _without_hole(last, event)
            last = key_of(event)
    return Intake(tuple(fresh), last, sum(event.events_dropped.count for event in fresh))


def _without_hole(last: Key, event: tunnel.Event) -> Iterator[tunnel.Event]:
    key = key_of(event)
    before = last.sequence if last.epoch == key.epoch else 0
    if event.WhichOneof("event") == "events_dropped":
        claimed = 0 if last.epoch == key.epoch else min(event.events_dropped.count, MOST_NUMBER)
        yield _dropped(event, key, max(claimed, key.sequence - before))
        return
    if key.sequence - before > 1:
        yield _dropped(event, Key(key.epoch, key.sequence - 1), key.sequence - before - 1)
    yield event


def _dropped(event: tunnel.Event, key: Key, count: int) -> tunnel.Event:
    dropped = tunnel.Event(epoch=key.epoch, sequence=key.sequence, events_dropped=tunnel.EventsDropped(count=count))
    dropped.at.CopyFrom(event.at)
    return dropped
