"""How an offer becomes the running configuration: a pure state machine, without I/O and without a clock of its own.

    IDLE → VERIFYING → STAGING → ACTIVATING → SOAKING → PROMOTING → IDLE        the report is HEALTHY
             └────────────┴──────────┴→ IDLE                                    REJECTED: what ran still runs
                                     └──────┴──────────┴→ ROLLING_BACK → IDLE   ROLLED_BACK: last known good runs

The shell (applier.py) performs the effects and comes back with `succeeded`, `failed` or, when nothing else happens
until `next_wake_s`, `tick`. Times are monotonic seconds. Reports are fire and forget: whether they arrive changes
nothing here.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ApplyState, ConfigOffer, Nack, NackCode


class Phase(StrEnum):
    """What the machine waits for."""

    IDLE = "idle"
    VERIFYING = "verifying"
    STAGING = "staging"
    ACTIVATING = "activating"
    SOAKING = "soaking"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each phase may take, and how soon a newer offer may preempt it."""

    verifying_s: float = 120.0
    staging_s: float = 30.0
    activating_s: float = 900.0  # models are loaded and documents embedded here
    soaking_s: float = 60.0  # the soak itself and what polling it takes
    promoting_s: float = 30.0
    rolling_back_s: float = 900.0
    stuck_s: float = 30.0
    restore_first_s: float = 1.0  # between attempts to bring last known good back up; doubles each time
    restore_last_s: float = 60.0

    def of(self, phase: Phase) -> float:
        limit: float = getattr(self, f"{phase}_s")
        return limit


@dataclass(frozen=True, slots=True)
class Ticket:
    """An offer as far as the machine cares; the offer itself rides along."""

    nonce: bytes
    revision: int
    manifest_sha256: bytes
    offer: ConfigOffer = field(default_factory=ConfigOffer, compare=False, repr=False)

    def is_same_revision(self, other: "Ticket") -> bool:
        """By content and by number: the number that an offer gives is checked with the rest of it, not believed."""
        return (self.revision, self.manifest_sha256) == (other.revision, other.manifest_sha256)


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the control plane, now or when there is a session."""

    nonce: bytes
    revision: int
    state: ApplyState.ValueType
    nack: Nack | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the work of this attempt and wait for its end before any other work begins."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Verify:
    """Check trust and make the offer durable. Ends in succeeded or failed with this attempt, like all work."""

    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Stage:
    """Check what was verified against schema, references and ceiling."""

    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Activate:
    """Make it the running one; on failure what ran still runs."""

    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Soak:
    """Watch it for a while."""

    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Promote:
    """Record it as last known good, durably."""

    attempt: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Rollback:
    """Make last known good the running one; ends in restored or failed. quarantine: digest never to try again."""

    attempt: int
    quarantine: bytes | None = None
    ticket: Ticket | None = field(default=None, compare=False)  # what came to its end; None for a mere restore
    code: NackCode.ValueType = field(default=tunnel.NACK_CODE_UNSPECIFIED, compare=False)  # of that end


Work = Verify | Stage | Activate | Soak | Promote | Rollback
Effect = Report | Cancel | Work

TERMINAL = frozenset({tunnel.APPLY_STATE_HEALTHY, tunnel.APPLY_STATE_REJECTED, tunnel.APPLY_STATE_ROLLED_BACK})
PREEMPTIBLE = frozenset({Phase.VERIFYING, Phase.STAGING, Phase.ACTIVATING, Phase.ROLLING_BACK})
UNREACHED = {
    Phase.IDLE: tunnel.APPLY_STATE_VERIFIED,
    Phase.VERIFYING: tunnel.APPLY_STATE_VERIFIED,
    Phase.STAGING: tunnel.APPLY_STATE_STAGED,
    Phase.ACTIVATING: tunnel.APPLY_STATE_SOAKING,
    Phase.SOAKING: tunnel.APPLY_STATE_HEALTHY,
    Phase.PROMOTING: tunnel.APPLY_STATE_HEALTHY,
    Phase.ROLLING_BACK: tunnel.APPLY_STATE_HEALTHY,
}
REACHED = {
    Phase.STAGING: tunnel.APPLY_STATE_VERIFIED,
    Phase.ACTIVATING: tunnel.APPLY_STATE_APPLYING,
    Phase.SOAKING: tunnel.APPLY_STATE_SOAKING,
    Phase.PROMOTING: tunnel.APPLY_STATE_SOAKING,
}
WORK: dict[Phase, type[Verify] | type[Stage] | type[Activate] | type[Soak] | type[Promote]] = {
    Phase.VERIFYING: Verify,
    Phase.STAGING: Stage,
    Phase.ACTIVATING: Activate,
    Phase.SOAKING: Soak,
    Phase.PROMOTING: Promote,
}
AFTER = {Phase.VERIFYING: Phase.STAGING, Phase.STAGING: Phase.ACTIVATING, Phase.ACTIVATING: Phase.SOAKING}


class ApplyMachine:
    """One offer in flight, at most one more waiting; the newest wins. Not thread-safe."""

    def __init__(
        self,
        deadlines: Deadlines,
        *,
        healthy_sha256: bytes = b"",
        healthy_revision: int = 0,
        quarantined: frozenset[bytes] = frozenset(),
    ) -> None:
        """healthy_sha256: manifest digest of last known good, empty for none; healthy_revision: its number. Nothing
        runs yet."""
        self._deadlines = deadlines
        self._healthy = healthy_sha256
        self._healthy_revision = healthy_revision
        self._running: bytes | None = b""  # manifest digest; empty while nothing runs; None after a failed rollback
        self._quarantined = set(quarantined)
        self._phase = Phase.IDLE
        self._began_s = 0.0
        self._attempt = 0
        self._current: Ticket | None = None
        self._queued: Ticket | None = None
        self._verdict: Report | None = None  # what a rollback in progress ends in
        self._restore_at_s: float | None = None
        self._restore_wait_s = deadlines.restore_first_s

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def running_sha256(self) -> bytes:
        """Empty also for what nobody knows, because a rollback failed."""
        return self._running or b""

    @property
    def healthy_sha256(self) -> bytes:
        return self._healthy

    @property
    def in_flight(self) -> Ticket | None:
        return self._current

    def next_wake_s(self) -> float | None:
        """When `tick` should be called at the latest; None while there is nothing to wait for."""
        if self._phase is Phase.IDLE:
            return self._restore_at_s
        wakes = [self._began_s + self._deadlines.of(self._phase)]
        if self._queued and self._phase in PREEMPTIBLE:
            wakes.append(self._began_s + self._deadlines.stuck_s)
        return min(wakes)

    # ---- inputs

    def start(self, now_s: float) -> list[Effect]:
        """Bring last known good up, before any offer. Nothing to do without one."""
        return self._roll_back(now_s) if self._healthy else []

    def offered(self, ticket: Ticket, now_s: float) -> list[Effect]:
        """A new offer came. The same nonce again is a repetition of the network and changes nothing."""
        if any(known and known.nonce == ticket.nonce for known in (self._current, self._queued)):
            return []
        effects = self._supersede_queued()
        if self._current and self._phase in REACHED and self._current.is_same_revision(ticket):
            return effects + self._adopt(ticket)
        self._queued = ticket
        if self._phase is Phase.IDLE:
            return effects + self._next(now_s)
        return effects + self._preempt_if_stuck(now_s)

    def succeeded(self, attempt: int, now_s: float) -> list[Effect]:
        """The work of this attempt is done; of any other attempt: ignored."""
        if attempt != self._attempt or self._phase is Phase.IDLE:
            return []
        assert self._phase is not Phase.ROLLING_BACK, "ends in restored"
        assert self._current is not None
        if self._phase is Phase.SOAKING:
            return self._work(Phase.PROMOTING, now_s)
        if self._phase is Phase.PROMOTING:
            self._healthy, self._healthy_revision = self._current.manifest_sha256, self._current.revision
            return self._finish(_report(self._current, tunnel.APPLY_STATE_HEALTHY), now_s)
        return self._advance(self._current, now_s)

    def restored(self, attempt: int, healthy_sha256: bytes, now_s: float) -> list[Effect]:
        """The rollback of this attempt is done, and this manifest runs, which is last known good in the store."""
        if attempt != self._attempt or self._phase is not Phase.ROLLING_BACK:
            return []
        self._running = self._healthy = healthy_sha256
        if self._current and self._current.manifest_sha256 == healthy_sha256:
            # Promoting failed, and the store has it all the same: the write came through but for its last sync.
            self._healthy_revision = self._current.revision
            self._verdict = _report(self._current, tunnel.APPLY_STATE_HEALTHY)
        return self._conclude(now_s)

    def failed(self, attempt: int, nack: Nack, now_s: float) -> list[Effect]:
        """The work of this attempt came to nothing; of any other attempt: ignored."""
        if attempt != self._attempt or self._phase is Phase.IDLE:
            return []
        return self._fail(nack, now_s)

    def tick(self, now_s: float) -> list[Effect]:
        """Time went by: deadlines, preemption, another attempt at last known good."""
        if self._phase is Phase.IDLE:
            due = self._restore_at_s is not None and now_s >= self._restore_at_s
            return self._roll_back(now_s) if due else []
        if now_s >= self._began_s + self._deadlines.of(self._phase):
            return [Cancel(self._attempt), *self._overdue(now_s)]
        return self._preempt_if_stuck(now_s)

    # ---- offers

    def _next(self, now_s: float) -> list[Effect]:
        """Take up the waiting offer, if any."""
        self._phase, self._current, self._verdict = Phase.IDLE, None, None
        ticket, self._queued = self._queued, None
        if ticket is None:
            self._plan_restore(now_s)
            return []
        if ticket.manifest_sha256 in self._quarantined:
            return [_refused(ticket, tunnel.NACK_CODE_QUARANTINED), *self._next(now_s)]
        if ticket.manifest_sha256 == self._healthy == self._running and ticket.revision == self._healthy_revision:
            return [_report(ticket, tunnel.APPLY_STATE_HEALTHY), *self._next(now_s)]
        self._current = ticket
        return [_report(ticket, tunnel.APPLY_STATE_RECEIVED), *self._work(Phase.VERIFYING, now_s)]

    def _supersede_queued(self) -> list[Effect]:
        ticket, self._queued = self._queued, None
        return [_refused(ticket, tunnel.NACK_CODE_SUPERSEDED)] if ticket else []

    def _adopt(self, ticket: Ticket) -> list[Effect]:
        """What is in flight was offered again, after a reconnect: go on with it under the new nonce."""
        assert self._current is not None
        old, self._current = self._current, ticket
        nack = Nack(code=tunnel.NACK_CODE_SUPERSEDED, failed_to_reach=UNREACHED[self._phase])
        return [_report(old, tunnel.APPLY_STATE_REJECTED, nack), _report(ticket, REACHED[self._phase])]

    def _preempt_if_stuck(self, now_s: float) -> list[Effect]:
        stuck = now_s >= self._began_s + self._deadlines.stuck_s
        if not (stuck and self._queued and self._phase in PREEMPTIBLE):
            return []
        if self._phase is Phase.ROLLING_BACK:
            self._running = None
            return [Cancel(self._attempt), *self._conclude(now_s)]
        return [Cancel(self._attempt), *self._fail(Nack(code=tunnel.NACK_CODE_SUPERSEDED), now_s, cancelled=True)]

    # ---- phases

    def _work(self, phase: Phase, now_s: float) -> list[Effect]:
        assert self._current is not None
        self._enter(phase, now_s)
        return [WORK[phase](self._attempt, self._current)]

    def _enter(self, phase: Phase, now_s: float) -> None:
        self._phase, self._began_s = phase, now_s
        self._attempt += 1
        self._restore_at_s = None

    def _advance(self, ticket: Ticket, now_s: float) -> list[Effect]:
        """From verifying, staging or activating to what follows."""
        if self._phase is Phase.ACTIVATING:
            self._running = ticket.manifest_sha256
        reports: list[Effect] = []
        if self._phase is Phase.STAGING:
            reports.append(_report(ticket, tunnel.APPLY_STATE_STAGED))
        following = AFTER[self._phase]
        return [*reports, _report(ticket, REACHED[following]), *self._work(following, now_s)]

    def _overdue(self, now_s: float) -> list[Effect]:
        return self._fail(Nack(code=tunnel.NACK_CODE_DEADLINE), now_s, cancelled=True)

    def _fail(self, nack: Nack, now_s: float, *, cancelled: bool = False) -> list[Effect]:
        """cancelled: the work was cut off, so an activation may have come through all the same."""
        if self._phase is Phase.ROLLING_BACK:
            self._running = None
            return self._conclude(now_s)
        assert self._current is not None
        full = Nack()
        full.CopyFrom(nack)
        full.failed_to_reach = UNREACHED[self._phase]
        if self._phase in (Phase.SOAKING, Phase.PROMOTING):
            self._verdict = _report(self._current, tunnel.APPLY_STATE_ROLLED_BACK, full)
            return self._roll_back(now_s, quarantine=self._phase is Phase.SOAKING)
        self._verdict = _report(self._current, tunnel.APPLY_STATE_REJECTED, full)
        if self._phase is Phase.ACTIVATING and cancelled:
            return self._roll_back(now_s)
        return self._conclude(now_s)

    def _roll_back(self, now_s: float, *, quarantine: bool = False) -> list[Effect]:
        digest = self._current.manifest_sha256 if quarantine and self._current else None
        if digest:
            self._quarantined.add(digest)
        self._enter(Phase.ROLLING_BACK, now_s)
        nack = self._verdict.nack if self._verdict else None
        code = nack.code if nack else tunnel.NACK_CODE_UNSPECIFIED
        return [Rollback(self._attempt, digest, self._current, code)]

    def _conclude(self, now_s: float) -> list[Effect]:
        verdict = self._verdict
        return self._finish(verdict, now_s) if verdict else self._next(now_s)

    def _finish(self, verdict: Report, now_s: float) -> list[Effect]:
        return [verdict, *self._next(now_s)]

    def _plan_restore(self, now_s: float) -> None:
        """Last known good should run and does not: try again later, ever more rarely."""
        if self._running == self._healthy:
            self._restore_at_s, self._restore_wait_s = None, self._deadlines.restore_first_s
            return
        self._restore_at_s = now_s + self._restore_wait_s
        self._restore_wait_s = min(2 * self._restore_wait_s, self._deadlines.restore_last_s)


def _report(ticket: Ticket, state: ApplyState.ValueType, nack: Nack | None = None) -> Report:
    return Report(ticket.nonce, ticket.revision, state, nack)


def _refused(ticket: Ticket, code: NackCode.ValueType) -> Report:
    nack = Nack(code=code, failed_to_reach=tunnel.APPLY_STATE_VERIFIED)
    return _report(ticket, tunnel.APPLY_STATE_REJECTED, nack)
