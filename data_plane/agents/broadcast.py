"""Live events of runs to whoever watches them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faos.site.v1 import site_pb2 as site
from faos_core.errors import FaosError
from faos_core.ids import RunId

DELTAS_WAITING = 256
Make = Callable[[], site.RunEvent]


class Watcher:
    """One watcher's queue. At most `DELTAS_WAITING` events wait before text deltas are dropped: a slow watcher
    loses deltas, never steps (their number is bounded by the run's limits, and the finished step has the whole
    text). `lost_deltas` counts them."""

    def __init__(self) -> None:
        self._events: deque[site.RunEvent] = deque()
        self._changed = asyncio.Event()
        self._closed: FaosError | None = None
        self.lost_deltas = 0

    def put(self, event: site.RunEvent) -> None:
        if len(self._events) >= DELTAS_WAITING and event.HasField("text_delta"):
            self.lost_deltas += 1
            return
        self._events.append(event)
        self._changed.set()

    def close(self, error: FaosError) -> None:
        """End the stream with this error after what is queued."""
        self._closed = error
        self._changed.set()

    async def next(self) -> site.RunEvent:
        """The next event, once there is one. Raises what `close` was given, after the last."""
        while not self._events:
            if self._closed:
                raise self._closed
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


@dataclass(slots=True)
class Channel:
    """The watchers of one run, and the text of its step in progress, for those who come late."""

    watchers: list[Watcher] = field(default_factory=list)
    live: bool = False  # the run is in progress in this process
    sequence: int = 0  # of the step that the text belongs to
    text: list[str] = field(default_factory=list)
    past: list[Make] | None = None  # durable events from the run's start on; None where the journal alone knows them


class Broadcast:
    """All channels of a node. Events are only made when somebody watches."""

    def __init__(self) -> None:
        self._channels: dict[RunId, Channel] = {}

    @property
    def channel_count(self) -> int:
        return len(self._channels)

    def open(self, run_id: RunId, past: Sequence[Make] | None = None) -> None:
        """The run is in progress here. past: its durable events so far, of a run that began in this process: who
        comes later is shown them without asking the database."""
        channel = self._channels.setdefault(run_id, Channel())
        channel.live = True
        channel.past = None if past is None else list(past)

    def past(self, run_id: RunId) -> list[site.RunEvent] | None:
        """Every durable event of a run in progress, in order; None where only the journal knows."""
        channel = self._channels.get(run_id)
        return None if channel is None or channel.past is None else [make() for make in channel.past]

    def subscribe(self, run_id: RunId) -> tuple[Watcher, int, str]:
        """Watch from now on. Also: the sequence of the step in progress, and the text that it has so far."""
        channel = self._channels.setdefault(run_id, Channel())
        watcher = Watcher()
        channel.watchers.append(watcher)
        return watcher, channel.sequence, "".join(channel.text)

    def unsubscribe(self, run_id: RunId, watcher: Watcher) -> None:
        channel = self._channels.get(run_id)
        if channel is None or watcher not in channel.watchers:
            return
        channel.watchers.remove(watcher)
        if not channel.watchers and not channel.live:
            del self._channels[run_id]

    def publish(self, run_id: RunId, make: Make) -> None:
        """A durable event. Ends the text of the step before."""
        if channel := self._channels.get(run_id):
            channel.text.clear()
            if channel.past is not None:
                channel.past.append(make)
            _deliver(channel, make)

    def delta(self, run_id: RunId, sequence: int, text: str, make: Make) -> None:
        """A piece of the text of the step in progress."""
        if channel := self._channels.get(run_id):
            channel.sequence = sequence
            channel.text.append(text)
            _deliver(channel, make)

    def close(self, run_id: RunId, error: FaosError | None = None) -> None:
        """The run is no longer in progress here; with an error, its watchers are sent away with it."""
        channel = self._channels.pop(run_id, None)
        if channel and error:
            for watcher in channel.watchers:
                watcher.close(error)

    def close_all(self, error: FaosError) -> None:
        for run_id in list(self._channels):
            self.close(run_id, error)


def _deliver(channel: Channel, make: Make) -> None:
    if channel.watchers:
        event = make()
        for watcher in channel.watchers:
            watcher.put(event)
