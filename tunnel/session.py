"""The session protocol of both ends as pure state machines: no I/O, time handed in, effects handed out.

A session is one stream. The node opens it with Hello; the control plane answers Welcome and then offers
configuration, one offer at a time; the node reports what became of it. Nonces die with the stream, revisions do not.
Source: DESIGN section 5.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import DeadlineError, FaosError, InvalidError, UnavailableError, define
from tunnel.errors import FRAME_UNEXPECTED, HEARTBEAT_MISSED

PROTOCOL = 1
HELLO_DEADLINE_S = 15.0
MISSED_HEARTBEATS = 3
MOST_HEARTBEAT_S = 300.0  # whatever the control plane asks for
MAX_NONCE_BYTES = 64  # the node echoes it in each status, and keeps each status in its ledger
OFFER_SILENCE_S = 600.0  # a node that says nothing about an offer for this long may be offered it again
PREEMPT_S = 30.0  # an offer about which nothing was heard for this long no longer keeps a newer one back
MOST_NONCES = 64  # that a node remembers of one stream; beyond, the oldest is forgotten
MOST_PREEMPTED = 8  # offers of one stream whose end is still listened for; beyond, the oldest is forgotten

TERMINAL = frozenset({tunnel.APPLY_STATE_HEALTHY, tunnel.APPLY_STATE_REJECTED, tunnel.APPLY_STATE_ROLLED_BACK})
REFUSALS = TERMINAL - {tunnel.APPLY_STATE_HEALTHY}
# Refusals that say nothing about the content: the same revision may be offered again, after a while.
TRANSIENT = frozenset(
    {
        tunnel.NACK_CODE_DEADLINE,
        tunnel.NACK_CODE_STORAGE_FAILED,
        tunnel.NACK_CODE_METADATA_EXPIRED,
        tunnel.NACK_CODE_SUPERSEDED,
    }
)
TRANSIENT_RETRY_S = 60.0

DRAINING = define(
    "session.draining",
    what="The control plane is about to stop.",
    why="It asked its nodes to go elsewhere or to come back later.",
    next_step="Nothing to do: the node dials again by itself.",
)


class Phase(StrEnum):
    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Target:
    """What a node shall run."""

    revision: int
    manifest_sha256: bytes
    kinds: frozenset[int] = frozenset()  # of faos.resource.v1.Kind, that occur in it


# Effects of the control plane's side.


@dataclass(frozen=True, slots=True)
class Greet:
    """Send Welcome."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Send a ConfigOffer for this target under this nonce."""

    target: Target
    nonce: bytes


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The node cannot parse these kinds, so nothing is offered."""

    target: Target
    kinds: frozenset[int]
    order: int = field(default=0, compare=False)  # of the decision, in its stream


@dataclass(frozen=True, slots=True)
class Record:
    """Make durable what the node said; see `CloudSession.shows`."""

    status: tunnel.ApplyStatus
    order: int = field(default=0, compare=False)  # of the decision, in its stream


@dataclass(frozen=True, slots=True)
class Progress:
    """The node lives; what its heartbeat said."""

    heartbeat: tunnel.NodeHeartbeat


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a heartbeat with this sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream."""

    error: FaosError
    retry_after_s: float = 0.0


CloudEffect = Greet | Offer | HeldBack | Record | Progress | Beat | Close


@dataclass(slots=True)
class _InFlight:
    nonce: bytes
    target: Target
    heard_at_s: float


@dataclass(slots=True)
class CloudSession:
    """The control plane's side of one stream.

    Call `receive` for each frame, `desire` when the target changes, `tick` about once a second; perform the
    effects in order. After a Close effect the machine accepts nothing more. One offer is in flight: a newer target
    waits for its end, or until it has been silent for `preempt_s`. Then the newer one is sent; the node gives the
    other up when it finds it stuck itself, and what it says about that is recorded as before.
    """

    session_id: bytes  # random: makes nonces of different streams differ
    heartbeat_s: float
    opened_at_s: float
    refused: frozenset[int] = frozenset()  # revisions that this node refused before; parked until content changes
    target: Target | None = None
    preempt_s: float = PREEMPT_S
    phase: Phase = Phase.GREETING
    hello: tunnel.Hello = field(default_factory=tunnel.Hello)
    _config: tunnel.ConfigFacts = field(default_factory=tunnel.ConfigFacts)  # as the node said last
    _quarantined: dict[bytes, tunnel.NackCode.ValueType] = field(default_factory=dict)  # why, by manifest
    _in_flight: _InFlight | None = None
    _preempted: dict[bytes, Target] = field(default_factory=dict)  # by nonce: not heard the end of, oldest first
    _heard_at_s: float = 0.0
    _beat_at_s: float = 0.0
    _beats: int = 0
    _offers: int = 0
    _held_back: Target | None = None
    _decided: int = 0
    _shown: int = 0
    _not_before_s: float = 0.0  # no offer before this, because the last one failed for a reason that may pass

    def __post_init__(self) -> None:
        self._heard_at_s = self._beat_at_s = self.opened_at_s

    def receive(self, frame: tunnel.NodeFrame, now_s: float) -> list[CloudEffect]:
        if self.phase is Phase.CLOSED:
            return []
        self._heard_at_s = now_s
        kind = frame.WhichOneof("frame")
        if (self.phase is Phase.GREETING) != (kind == "hello"):
            return self._close(_unexpected(kind, "hello" if self.phase is Phase.GREETING else "status or heartbeat"))
        match kind:
            case "hello":
                return self._greet(frame.hello, now_s)
            case "apply_status":
                return self._reported(frame.apply_status, now_s)
            case "heartbeat":
                return [Progress(frame.heartbeat), *self._told(frame.heartbeat)]
            case _:
                return self._close(_unexpected(kind, "status or heartbeat"))

    def desire(self, target: Target | None, now_s: float) -> list[CloudEffect]:
        """The target is this now."""
        if target != self.target:
            self._not_before_s = 0.0
        self.target = target
        return self._next_offer(now_s)

    def shows(self, effect: HeldBack | Record) -> bool:
        """Whether this is the newest word on the node, to be asked right before it is written: while an effect before
        it was waited for, a later decision may have been written. A record that is not is kept by its revision alone.
        """
        is_newest = effect.order > self._shown
        self._shown = max(self._shown, effect.order)
        return is_newest

    def withdraw(self, nonce: bytes, target: Target | None, now_s: float) -> list[CloudEffect]:
        """The offer of this nonce was not sent, because by now the target is this one."""
        if self._in_flight and self._in_flight.nonce == nonce:
            self._in_flight = None
        return self.desire(target, now_s)

    def tick(self, now_s: float) -> list[CloudEffect]:
        if self.phase is Phase.CLOSED:
            return []
        limit_s = HELLO_DEADLINE_S if self.phase is Phase.GREETING else MISSED_HEARTBEATS * self.heartbeat_s
        if now_s - self._heard_at_s > limit_s:
            return self._close(_silent(now_s - self._heard_at_s, self.heartbeat_s))
        return self._beat(now_s) + self._offer_again(now_s)

    def _greet(self, hello: tunnel.Hello, now_s: float) -> list[CloudEffect]:
        self.phase, self.hello = Phase.OPEN, hello
        self._learn(hello.config)
        return [Greet(), *self._arrived(), *self._next_offer(now_s)]

    def _arrived(self) -> list[CloudEffect]:
        """The node may have become healthy while nobody listened: then its last recorded status is an earlier one."""
        target = self.target
        if target is None or not self._is_there(target):
            return []
        status = tunnel.ApplyStatus(revision=target.revision, state=tunnel.APPLY_STATE_HEALTHY, config=self._config)
        return [Record(status, self._next_order())]

    def _told(self, heartbeat: tunnel.NodeHeartbeat) -> list[CloudEffect]:
        """Facts that no status told, because none was about an offer of this stream. Says nothing about progress."""
        if not heartbeat.HasField("config"):
            return []  # a node before version 0.2
        was_there = self.target is not None and self._is_there(self.target)
        self._learn(heartbeat.config)
        return [] if was_there else self._arrived()

    def _reported(self, status: tunnel.ApplyStatus, now_s: float) -> list[CloudEffect]:
        offer = self._in_flight
        if offer is None or status.nonce != offer.nonce:
            return self._reported_late(status)
        self._learn(status.config)
        offer.heard_at_s = now_s
        if status.state not in TERMINAL:
            return [Record(status, self._next_order())]
        self._in_flight = None
        if _parks(status):
            self.refused |= {offer.target.revision, status.revision}
        elif status.state in REFUSALS and offer.target == self.target:
            self._not_before_s = now_s + TRANSIENT_RETRY_S
        return [Record(status, self._next_order()), *self._next_offer(now_s)]

    def _reported_late(self, status: tunnel.ApplyStatus) -> list[CloudEffect]:
        """About an offer that a newer one preempted, which changes nothing for the newer one; of any other that this
        stream no longer waits for: ignored."""
        target = self._preempted.get(status.nonce)
        if target is None:
            return []
        self._learn(status.config)
        if status.state in TERMINAL:
            del self._preempted[status.nonce]
        if _parks(status):
            self.refused |= {target.revision, status.revision}
        return [Record(status, self._next_order())]

    def _learn(self, config: tunnel.ConfigFacts) -> None:
        self._config = config
        codes = [*config.quarantined_code, *[tunnel.NACK_CODE_UNSPECIFIED] * len(config.quarantined_manifest_sha256)]
        self._quarantined = dict(zip(config.quarantined_manifest_sha256, codes, strict=False))

    def _next_offer(self, now_s: float) -> list[CloudEffect]:
        target = self.target
        if self.phase is not Phase.OPEN or target is None or self._keeps_back(target, now_s) or self._settled(target):
            return []
        unknown = target.kinds - frozenset(self.hello.kinds)
        will_not = target.manifest_sha256 in self._quarantined or unknown
        if now_s < self._not_before_s or (will_not and self._in_flight):
            return []  # why it is not offered is said last, so that nothing hides it
        if target.manifest_sha256 in self._quarantined:
            return self._park(target)
        if unknown:
            return self._hold_back(target, unknown)
        self._preempt()
        self._offers += 1
        nonce = self.session_id + self._offers.to_bytes(4)
        self._in_flight = _InFlight(nonce, target, now_s)
        return [Offer(target, nonce)]

    def _keeps_back(self, target: Target, now_s: float) -> bool:
        """Whether there is an offer in flight that this target has to wait for."""
        offer = self._in_flight
        return offer is not None and (offer.target == target or now_s - offer.heard_at_s < self.preempt_s)

    def _preempt(self) -> None:
        """What is in flight is not waited for any more, but listened to."""
        if self._in_flight:
            self._preempted[self._in_flight.nonce] = self._in_flight.target
        if len(self._preempted) > MOST_PREEMPTED:
            del self._preempted[next(iter(self._preempted))]

    def _settled(self, target: Target) -> bool:
        """Runs and is last known good, or was refused: parked until the content changes.

        What runs and is not yet last known good is offered again after a reconnect: the node goes on with it, and
        this stream hears what becomes of it.
        """
        return self._is_there(target) or target.revision in self.refused

    def _is_there(self, target: Target) -> bool:
        """By number and by content: a control plane restored from a backup may have given the number again. Nodes
        before version 0.2 do not tell the content."""
        facts = self._config
        same_content = facts.running_manifest_sha256 in (b"", target.manifest_sha256)
        return same_content and facts.running_revision == facts.healthy_revision == target.revision

    def _park(self, target: Target) -> list[CloudEffect]:
        """The node rolled it back while nobody listened: record why it will not be offered."""
        self.refused |= {target.revision}
        code = self._quarantined[target.manifest_sha256] or tunnel.NACK_CODE_QUARANTINED
        nack = tunnel.Nack(code=code, failed_to_reach=tunnel.APPLY_STATE_HEALTHY)
        state = tunnel.APPLY_STATE_ROLLED_BACK
        status = tunnel.ApplyStatus(revision=target.revision, state=state, nack=nack, config=self._config)
        return [Record(status, self._next_order())]

    def _hold_back(self, target: Target, kinds: frozenset[int]) -> list[CloudEffect]:
        if self._held_back == target:
            return []
        self._held_back = target
        return [HeldBack(target, kinds, self._next_order())]

    def _next_order(self) -> int:
        self._decided += 1
        return self._decided

    def _offer_again(self, now_s: float) -> list[CloudEffect]:
        """After a node was silent about an offer for long, or refused it for a reason that may have passed."""
        if self._in_flight and now_s - self._in_flight.heard_at_s > OFFER_SILENCE_S:
            self._in_flight = None
        return self._next_offer(now_s)

    def _beat(self, now_s: float) -> list[CloudEffect]:
        if self.phase is not Phase.OPEN or now_s - self._beat_at_s < self.heartbeat_s:
            return []
        self._beat_at_s = now_s
        self._beats += 1
        return [Beat(self._beats)]

    def _close(self, error: FaosError) -> list[CloudEffect]:
        self.phase = Phase.CLOSED
        return [Close(error)]


# Effects of the node's side.


@dataclass(frozen=True, slots=True)
class SendHello:
    """Send Hello."""


@dataclass(frozen=True, slots=True)
class SendStatus:
    status: tunnel.ApplyStatus


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    sequence: int


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The link is up."""

    welcome: tunnel.Welcome


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand this offer to the applier."""

    offer: tunnel.ConfigOffer


NodeEffect = SendHello | SendStatus | SendHeartbeat | Welcomed | Deliver | Close


@dataclass(slots=True)
class NodeSession:
    """The node's side of one stream: `open` once, then `receive`, `report` and `tick` in any order."""

    opened_at_s: float
    phase: Phase = Phase.GREETING
    heartbeat_s: float = 0.0
    _nonces: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_NONCES))
    _heard_at_s: float = 0.0
    _beat_at_s: float = 0.0
    _beats: int = 0

    def open(self) -> list[NodeEffect]:
        self._heard_at_s = self._beat_at_s = self.opened_at_s
        return [SendHello()]

    def receive(self, frame: tunnel.CloudFrame, now_s: float) -> list[NodeEffect]:
        if self.phase is Phase.CLOSED:
            return []
        self._heard_at_s = now_s
        kind = frame.WhichOneof("frame")
        if self.phase is Phase.GREETING:
            return self._welcomed(frame.welcome) if kind == "welcome" else self._greeted_wrongly(frame, kind)
        match kind:
            case "config_offer" if len(frame.config_offer.nonce) > MAX_NONCE_BYTES:
                return self._close(_unexpected("an offer with too long a nonce", "offer, heartbeat or drain"))
            case "config_offer":
                self._nonces.append(frame.config_offer.nonce)
                return [Deliver(frame.config_offer)]
            case "heartbeat":
                return []
            case "drain":
                return self._drained(frame.drain)
            case _:
                return self._close(_unexpected(kind, "offer, heartbeat or drain"))

    def report(self, status: tunnel.ApplyStatus) -> Sequence[NodeEffect]:
        """A status of an offer of another stream is not sent: its nonce died with that stream, and the next
        Hello tells the facts."""
        known = self.phase is Phase.OPEN and status.nonce in self._nonces
        return [SendStatus(status)] if known else []

    def tick(self, now_s: float) -> list[NodeEffect]:
        if self.phase is Phase.CLOSED:
            return []
        limit_s = HELLO_DEADLINE_S if self.phase is Phase.GREETING else MISSED_HEARTBEATS * self.heartbeat_s
        if now_s - self._heard_at_s > limit_s:
            return self._close(_silent(now_s - self._heard_at_s, self.heartbeat_s))
        if self.phase is Phase.OPEN and now_s - self._beat_at_s >= self.heartbeat_s:
            self._beat_at_s = now_s
            self._beats += 1
            return [SendHeartbeat(self._beats)]
        return []

    def _welcomed(self, welcome: tunnel.Welcome) -> list[NodeEffect]:
        self.phase = Phase.OPEN
        self.heartbeat_s = min(max(1.0, float(welcome.heartbeat_seconds)), MOST_HEARTBEAT_S)
        return [Welcomed(welcome)]

    def _greeted_wrongly(self, frame: tunnel.CloudFrame, kind: str | None) -> list[NodeEffect]:
        return self._drained(frame.drain) if kind == "drain" else self._close(_unexpected(kind, "welcome"))

    def _drained(self, drain: tunnel.Drain) -> list[NodeEffect]:
        self.phase = Phase.CLOSED
        return [Close(UnavailableError(DRAINING), float(drain.retry_after_seconds))]

    def _close(self, error: FaosError) -> list[NodeEffect]:
        self.phase = Phase.CLOSED
        return [Close(error)]


def _parks(status: tunnel.ApplyStatus) -> bool:
    """A refusal that stands until the content changes."""
    return status.state in REFUSALS and status.nack.code not in TRANSIENT


def _unexpected(kind: str | None, expected: str) -> InvalidError:
    return InvalidError(FRAME_UNEXPECTED, frame=kind or "an unknown frame", expected=expected)


def _silent(silent_s: float, interval_s: float) -> DeadlineError:
    return DeadlineError(HEARTBEAT_MISSED, silent_s=round(silent_s), interval_s=round(interval_s))
