"""PushEvents as pure machines: what is lost on the way, doubled or late, must not be so in the end."""

from collections import deque
from collections.abc import Sequence
from random import Random

import pytest

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import InvalidError, LimitError
from tunnel.events import (
    BEGIN,
    CREDIT_BYTES,
    CREDIT_EVENTS,
    MOST_BATCH_EVENTS,
    MOST_EPOCH,
    EventReceiver,
    EventSender,
    Forget,
    Key,
    Renumber,
    intake,
    key_of,
)


def event(epoch: int, sequence: int, *, dropped: int = 0, run_id: str = "run-1") -> tunnel.Event:
    made = tunnel.Event(epoch=epoch, sequence=sequence)
    if dropped:
        made.events_dropped.count = dropped
    else:
        made.run_ended.run_id = run_id
    return made


def ack(epoch: int, sequence: int, *, events: int = CREDIT_EVENTS, size_bytes: int = CREDIT_BYTES) -> tunnel.EventAck:
    return tunnel.EventAck(epoch=epoch, sequence=sequence, credit_events=events, credit_bytes=size_bytes)


def opened(*, epoch: int = 1, **credit: int) -> EventSender:
    sender = EventSender(epoch)
    sender.open()
    sender.acknowledged(ack(0, 0, **credit))
    return sender


def numbers(events: Sequence[tunnel.Event]) -> list[tuple[int, int]]:
    return [tuple(key_of(each)) for each in events]  # type: ignore[misc]  # a pair each


def test_nothing_is_sent_before_the_first_ack() -> None:
    """Only the control plane knows where to go on."""
    sender = EventSender(1)
    sender.open()

    assert sender.take([event(1, 1)]) == []
    assert not sender.has_room


def test_credit_bounds_what_is_under_way_and_acks_free_it() -> None:
    """A control plane that is slow must not have a node's whole spool in its memory."""
    sender = opened(events=3)
    due = [event(1, number) for number in range(1, 10)]

    assert numbers(sender.take(due)) == [(1, 1), (1, 2), (1, 3)]
    assert sender.take(due[3:]) == []
    assert sender.acknowledged(ack(1, 2, events=3)) == [Forget(Key(1, 2))]
    assert numbers(sender.take(due[3:])) == [(1, 4), (1, 5)]


def test_bytes_bound_too_but_never_stop_one_event_alone() -> None:
    """A credit smaller than the next event would otherwise stand still for ever."""
    sender = opened(size_bytes=1)

    assert numbers(sender.take([event(1, 1), event(1, 2)])) == [(1, 1)]
    assert sender.take([event(1, 2)]) == []
    sender.acknowledged(ack(1, 1, size_bytes=1))
    assert numbers(sender.take([event(1, 2)])) == [(1, 2)]


def test_acked_bytes_and_those_of_a_broken_stream_are_free_again() -> None:
    """Credit that leaks stops a node after a day."""
    size = event(1, 1).ByteSize()
    sender = opened(size_bytes=2 * size)
    sender.take([event(1, 1), event(1, 2)])
    sender.acknowledged(ack(1, 2, size_bytes=2 * size))
    assert len(sender.take([event(1, 3), event(1, 4)])) == 2

    sender.open()
    sender.acknowledged(ack(1, 2, events=2, size_bytes=2 * size))

    assert len(sender.take([event(1, 3), event(1, 4)])) == 2


def test_no_credit_stops_all() -> None:
    """It is how a control plane says: not now."""
    sender = opened(events=0)

    assert sender.take([event(1, 1)]) == []


def test_a_batch_is_bounded() -> None:
    """One batch is one message and one transaction."""
    due = [event(1, number) for number in range(1, 1000)]

    assert len(opened().take(due)) == MOST_BATCH_EVENTS


def test_a_new_stream_goes_on_behind_what_is_durable() -> None:
    """Whether what was under way had arrived is the control plane's to say."""
    sender = opened()
    sender.take([event(1, number) for number in range(1, 6)])
    sender.open()

    assert sender.acknowledged(ack(1, 3)) == [Forget(Key(1, 3))]
    assert sender.sent == Key(1, 3)


def test_what_an_older_stream_delivered_meanwhile_is_not_sent_again() -> None:
    """An old connection may be read to its end while a new one is up."""
    sender = opened()
    sender.take([event(1, number) for number in range(1, 6)])
    sender.open()
    sender.acknowledged(ack(1, 1))
    sender.take([event(1, 2)])

    sender.acknowledged(ack(1, 5))

    assert sender.sent == Key(1, 5)


@pytest.mark.parametrize("wrong", [ack(1, 1), ack(1, 9), ack(7, 0), ack(MOST_EPOCH, 1), ack(0, 2**63)])
def test_an_ack_that_cannot_be_ends_the_stream(wrong: tunnel.EventAck) -> None:
    """Whoever holds the control plane must not make a node forget what it has not sent."""
    sender = opened()
    sender.take([event(1, number) for number in range(1, 4)])
    sender.acknowledged(ack(1, 2))

    with pytest.raises(InvalidError):
        sender.acknowledged(wrong)


def test_a_node_restored_from_a_backup_takes_new_numbers() -> None:
    """Its epochs were used before: under their keys the control plane has other events."""
    sender = EventSender(4)
    sender.open()

    assert sender.acknowledged(ack(4, 120)) == [Renumber(5)]
    sender.renumbered(5)

    assert sender.acknowledged(ack(4, 120)) == [Forget(Key(4, 120))]
    assert numbers(sender.take([event(5, 1)])) == [(5, 1)]
    assert sender.acknowledged(ack(5, 1)) == [Forget(Key(5, 1))]


@pytest.mark.parametrize("wrong", [ack(MOST_EPOCH, 1), ack(0, 2**63), ack(9, 2**64 - 1)])
def test_a_first_ack_beyond_all_numbers_is_refused(wrong: tunnel.EventAck) -> None:
    """Past what a database takes, one message of whoever answers would end the node at its next write."""
    sender = EventSender(1)
    sender.open()

    with pytest.raises(InvalidError):
        sender.acknowledged(wrong)


def test_an_ack_of_an_earlier_process_is_no_foreign_one() -> None:
    """What an earlier process had under way may arrive after this one began."""
    sender = EventSender(2)
    sender.open()

    assert sender.acknowledged(ack(1, 100)) == [Forget(Key(1, 100))]
    assert sender.epoch == 2


@pytest.mark.parametrize(
    "events",
    [
        [event(1, 2), event(1, 1)],
        [event(1, 1), event(1, 1)],
        [event(2, 1), event(1, 9)],
        [event(0, 1)],
        [event(1, 0)],
        [event(1, 2**63)],
        [event(2**63, 1)],
    ],
)
def test_events_without_order_or_key_are_refused(events: list[tunnel.Event]) -> None:
    """A cumulative ack means nothing without an order, and a database holds 63 bits."""
    with pytest.raises(InvalidError):
        EventReceiver(BEGIN).received(tunnel.EventBatch(events=events))


@pytest.mark.parametrize(
    "events",
    [
        [event(1, number) for number in range(1, CREDIT_EVENTS + 2)],
        [event(1, 1, run_id="x" * CREDIT_BYTES)],
    ],
)
def test_more_than_the_credit_is_refused(events: list[tunnel.Event]) -> None:
    """The node that does so is not ours."""
    with pytest.raises(LimitError):
        EventReceiver(BEGIN).received(tunnel.EventBatch(events=events))


def test_only_what_is_new_is_written() -> None:
    """The same batch twice, over two connections, is the normal case after a cut."""
    new = intake(Key(1, 2), [event(1, 1), event(1, 2), event(1, 3)])

    assert (numbers(new.fresh), new.durable, new.lost_count) == ([(1, 3)], Key(1, 3), 0)


def test_nothing_new_leaves_all_as_it_is() -> None:
    """An ack never goes back."""
    assert intake(Key(2, 5), [event(1, 9)]).durable == Key(2, 5)


def test_a_hole_is_told_and_stops_nobody() -> None:
    """A control plane restored from a backup misses what it acknowledged before, and says so."""
    new = intake(Key(1, 2), [event(1, 6), event(2, 3)])

    assert numbers(new.fresh) == [(1, 5), (1, 6), (2, 2), (2, 3)]
    assert [each.events_dropped.count for each in new.fresh] == [3, 0, 2, 0]
    assert new.lost_count == 5


def test_what_arrived_does_not_count_as_dropped() -> None:
    """The node dropped what it believed to be under way; some of it had arrived."""
    new = intake(Key(1, 4), [event(1, 6, dropped=5)])

    assert (numbers(new.fresh), new.lost_count) == ([(1, 6)], 2)


def test_dropped_over_several_epochs_count_as_the_node_says() -> None:
    """Nobody else knows how many there were."""
    assert intake(Key(1, 4), [event(3, 2, dropped=40)]).lost_count == 40


class Connection:
    """A stream's two directions, in order; either end may go on for a while after the other is gone."""

    def __init__(self, durable: Key) -> None:
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.receiver = EventReceiver(durable)
        self.down.append(self.receiver.ack().SerializeToString())


class Streams:
    """A node that makes, restarts, reconnects and fills its spool; connections that lose their end, deliver late and
    side by side; a control plane that dies between its write and its ack. The real machines decide."""

    LIMIT = 40

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.epoch, self.sequence = 1, 0
        self.made: list[Key] = []
        self.spool: dict[Key, int] = {}  # to the number of events that it stands for
        self.dropped: set[Key] = set()
        self.sender = EventSender(1)
        self.connections: list[Connection] = []  # the node's is the last
        self.rows: dict[Key, int] = {}
        self.durable = BEGIN
        self.is_up = False
        self.doubles = 0  # events that arrived again

    def run(self, steps: int) -> "Streams":
        actions = [self.make, self.restart, self.connect, self.cut, self.send, self.receive, self.acknowledge]
        for _ in range(steps):
            self.random.choices(actions, (3, 0.3, 1, 0.5, 4, 4, 4))[0]()
            self.check()
        self.end()
        return self

    def make(self) -> None:
        for _ in range(self.random.randrange(1, 5)):
            self.sequence += 1
            key = Key(self.epoch, self.sequence)
            self.made.append(key)
            self.spool[key] = 0
        if len(self.spool) > self.LIMIT:
            self.overflow()

    def overflow(self) -> None:
        oldest = sorted(self.spool)[: len(self.spool) - self.LIMIT // 2]
        count = sum(self.spool.pop(key) or 1 for key in oldest)
        self.dropped |= {key for key in self.made if key <= oldest[-1]}
        self.spool[oldest[-1]] = count

    def restart(self) -> None:
        self.epoch, self.sequence = self.epoch + 1, 0
        self.sender, self.is_up = EventSender(self.epoch), False

    def connect(self) -> None:
        self.connections = [*self.connections[-2:], Connection(self.durable)]
        self.sender.open()
        self.is_up = True

    def cut(self) -> None:
        """What is under way is lost, but for the first messages perhaps, which arrive after the end."""
        self.is_up = False
        for connection in self.connections:
            for way in (connection.up, connection.down):
                for _ in range(self.random.randrange(len(way) + 1)):
                    way.pop()

    def send(self) -> None:
        due = [event(*key, dropped=self.spool[key]) for key in sorted(self.spool) if key > self.sender.sent]
        if self.is_up and (batch := self.sender.take(due[: self.random.randrange(1, 9)])):
            self.connections[-1].up.append(tunnel.EventBatch(events=batch).SerializeToString())

    def receive(self) -> None:
        waiting = [each for each in self.connections if each.up]
        if not waiting:
            return
        connection = self.random.choice(waiting)
        batch = tunnel.EventBatch.FromString(connection.up.popleft())
        connection.receiver.received(batch)
        new = intake(self.durable, batch.events)
        self.doubles += len(batch.events) - len(new.fresh)
        for each in new.fresh:
            assert key_of(each) not in self.rows, "written once"
            self.rows[key_of(each)] = each.events_dropped.count
        assert new.durable >= self.durable, "what is durable stays so"
        connection.receiver.durable = self.durable = new.durable
        if self.random.random() < 0.02:  # dies after its write and before its ack
            self.connections, self.is_up = [], False
        else:
            connection.down.append(connection.receiver.ack().SerializeToString())

    def acknowledge(self) -> None:
        if not self.is_up or not self.connections[-1].down:
            return
        message = tunnel.EventAck.FromString(self.connections[-1].down.popleft())
        for effect in self.sender.acknowledged(message):
            assert isinstance(effect, Forget), "nobody was restored here"
            for key in [key for key in self.spool if key <= effect.through]:
                del self.spool[key]

    def check(self) -> None:
        """Every event is at the node, or at the control plane, or was dropped; no other is anywhere."""
        events = [key for key, count in self.rows.items() if not count]
        assert set(events) <= set(self.made)
        assert events == sorted(events), "in their order"
        gone = set(self.made) - self.spool.keys() - set(events) - self.dropped
        assert not gone, "acknowledged, and not durable"

    def end(self) -> None:
        """Once connections hold, all arrives, and what was dropped is counted."""
        self.connect()
        while self.spool:
            before = (len(self.spool), self.sender.sent, len(self.connections[-1].down))
            self.send()
            if self.connections[-1].up:
                self.receive_last()
            self.acknowledge()
            after = (len(self.spool), self.sender.sent, len(self.connections[-1].down))
            assert before != after, "it stands still"
        self.check()
        lost = len(self.made) - sum(not count for count in self.rows.values())
        told = sum(self.rows.values())
        assert told == lost if self.epoch == 1 else told >= lost, "counted exactly within an epoch"

    def receive_last(self) -> None:
        connection = self.connections[-1]
        batch = tunnel.EventBatch.FromString(connection.up.popleft())
        new = intake(self.durable, batch.events)
        self.rows |= {key_of(each): each.events_dropped.count for each in new.fresh}
        connection.receiver.durable = self.durable = new.durable
        connection.down.append(connection.receiver.ack().SerializeToString())


def test_every_acknowledged_event_is_durable_exactly_once() -> None:
    """The invariant of the design, whatever the connections do."""
    doubles = dropped = 0
    for seed in range(300):
        try:
            world = Streams(seed).run(150)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        doubles += world.doubles
        dropped += len(world.dropped)

    assert min(doubles, dropped) > 300, "the worlds are as bad as they should be"
