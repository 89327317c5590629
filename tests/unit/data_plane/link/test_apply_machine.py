"""The apply machine over every order of offers, outcomes and delays that hypothesis can think of."""

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from data_plane.link.apply_machine import (
    TERMINAL,
    Activate,
    ApplyMachine,
    Cancel,
    Deadlines,
    Effect,
    Phase,
    Promote,
    Report,
    Rollback,
    Soak,
    Stage,
    Ticket,
    Verify,
    Work,
)
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import Nack

TIMES = Deadlines()
UNHEALTHY = Nack(code=tunnel.NACK_CODE_TOOL_SERVER_FAILED)


def ticket(name: str, revision: int = 1, content: bytes | None = None) -> Ticket:
    return Ticket(name.encode(), revision, content or f"digest of {revision}".encode())


def reports(effects: Sequence[Effect]) -> list[tuple[str, str, str]]:
    """(nonce, state, code) of each report."""
    return [
        (
            each.nonce.decode(),
            tunnel.ApplyState.Name(each.state).removeprefix("APPLY_STATE_"),
            tunnel.NackCode.Name(each.nack.code).removeprefix("NACK_CODE_") if each.nack else "",
        )
        for each in effects
        if isinstance(each, Report)
    ]


def work_in(effects: Sequence[Effect]) -> Work:
    (work,) = [each for each in effects if not isinstance(each, Report | Cancel)]
    return work


def drive(machine: ApplyMachine, effects: Sequence[Effect], until: type[Work], now_s: float = 0.0) -> Work:
    """Let everything succeed until this kind of work begins."""
    work = work_in(effects)
    while not isinstance(work, until):
        work = work_in(machine.succeeded(work.attempt, now_s))
    return work


def make_healthy(machine: ApplyMachine, offer: Ticket) -> list[Effect]:
    promote = drive(machine, machine.offered(offer, 0.0), Promote)
    return machine.succeeded(promote.attempt, 0.0)


def test_good_offer_is_reported_phase_by_phase() -> None:
    """An operator sees where an offer is."""
    machine = ApplyMachine(TIMES)
    effects = machine.offered(ticket("a"), 0.0)
    seen = [*effects]
    order = []
    while machine.phase is not Phase.IDLE:
        work = work_in(effects)
        order.append(type(work))
        effects = machine.succeeded(work.attempt, 0.0)
        seen += effects

    assert order == [Verify, Stage, Activate, Soak, Promote]
    states = [state for _, state, _ in reports(seen)]
    assert states == ["RECEIVED", "VERIFIED", "STAGED", "APPLYING", "SOAKING", "HEALTHY"]


@pytest.mark.parametrize(
    ("failing", "unreached"),
    [(Verify, "VERIFIED"), (Stage, "STAGED"), (Activate, "SOAKING")],
)
def test_failure_before_the_switch_is_rejected_without_a_rollback(failing: type[Work], unreached: str) -> None:
    """What ran still runs, so touching it would only do harm."""
    machine = ApplyMachine(TIMES)
    make_healthy(machine, ticket("a", 1))
    work = drive(machine, machine.offered(ticket("b", 2), 0.0), failing)

    effects = machine.failed(work.attempt, Nack(code=tunnel.NACK_CODE_SPEC_INVALID, resource_name="r"), 0.0)

    assert reports(effects) == [("b", "REJECTED", "SPEC_INVALID")]
    (report,) = effects
    assert isinstance(report, Report)
    assert report.nack is not None
    assert tunnel.ApplyState.Name(report.nack.failed_to_reach) == f"APPLY_STATE_{unreached}"
    assert report.nack.resource_name == "r"
    assert machine.running_sha256 == ticket("a", 1).manifest_sha256


def test_ill_health_rolls_back_and_quarantines() -> None:
    """The report comes when last known good runs again, and the same content is not tried twice."""
    machine = ApplyMachine(TIMES)
    make_healthy(machine, ticket("a", 1))
    soak = drive(machine, machine.offered(ticket("b", 2), 0.0), Soak)

    rollback = work_in(machine.failed(soak.attempt, UNHEALTHY, 0.0))
    assert rollback == Rollback(rollback.attempt, ticket("b", 2).manifest_sha256)
    effects = machine.restored(rollback.attempt, ticket("a", 1).manifest_sha256, 0.0)

    assert reports(effects) == [("b", "ROLLED_BACK", "TOOL_SERVER_FAILED")]
    assert reports(machine.offered(ticket("c", 2), 0.0)) == [("c", "REJECTED", "QUARANTINED")]


def test_failure_to_promote_rolls_back_without_quarantine() -> None:
    """A full disk says nothing about the content."""
    machine = ApplyMachine(TIMES)
    promote = drive(machine, machine.offered(ticket("a"), 0.0), Promote)

    rollback = work_in(machine.failed(promote.attempt, Nack(code=tunnel.NACK_CODE_STORAGE_FAILED), 0.0))

    assert rollback == Rollback(rollback.attempt, None)


def test_promotion_that_failed_and_came_through_is_reported_as_healthy() -> None:
    """Whether it was rolled back is what the store says, not what the disk said on the way."""
    machine = ApplyMachine(TIMES)
    promote = drive(machine, machine.offered(ticket("a"), 0.0), Promote)
    rollback = work_in(machine.failed(promote.attempt, Nack(code=tunnel.NACK_CODE_STORAGE_FAILED), 0.0))

    effects = machine.restored(rollback.attempt, ticket("a").manifest_sha256, 0.0)

    assert reports(effects) == [("a", "HEALTHY", "")]
    assert machine.next_wake_s() is None


def test_quarantine_outlives_the_machine() -> None:
    """A restart must not be a second chance for what broke the node."""
    machine = ApplyMachine(TIMES, quarantined=frozenset({ticket("a").manifest_sha256}))

    assert reports(machine.offered(ticket("a"), 0.0)) == [("a", "REJECTED", "QUARANTINED")]


def test_what_is_healthy_already_is_acknowledged_at_once() -> None:
    """A reconnect must not restart models and tool servers."""
    machine = ApplyMachine(TIMES)
    make_healthy(machine, ticket("a"))

    assert reports(machine.offered(ticket("again"), 0.0)) == [("again", "HEALTHY", "")]
    assert machine.phase is Phase.IDLE


def test_number_that_an_offer_gives_is_checked_even_where_the_content_is_known() -> None:
    """Else whoever renames an offer on its way has a revision stored and shown that nobody signed."""
    machine = ApplyMachine(TIMES)
    content = ticket("a").manifest_sha256
    soak = drive(machine, machine.offered(ticket("a"), 0.0), Soak)

    assert machine.offered(ticket("renamed", 4, content), 0.0) == []
    assert machine.in_flight == ticket("a")
    promote = work_in(machine.succeeded(soak.attempt, 0.0))
    effects = machine.succeeded(promote.attempt, 0.0)
    assert reports(effects) == [("a", "HEALTHY", ""), ("renamed", "RECEIVED", "")]
    assert isinstance(work_in(effects), Verify)


def test_newer_offer_supersedes_the_queued_one() -> None:
    """One in flight, one waiting: a fast publisher cannot grow a queue."""
    machine = ApplyMachine(TIMES)
    verify = work_in(machine.offered(ticket("a", 1), 0.0))

    assert machine.offered(ticket("b", 2), 0.0) == []
    assert reports(machine.offered(ticket("c", 3), 0.0)) == [("b", "REJECTED", "SUPERSEDED")]

    effects = machine.failed(verify.attempt, UNHEALTHY, 0.0)
    assert reports(effects) == [("a", "REJECTED", "TOOL_SERVER_FAILED"), ("c", "RECEIVED", "")]


def test_newer_offer_preempts_a_stuck_one() -> None:
    """The fix for what hangs must not have to wait for it."""
    machine = ApplyMachine(TIMES)
    verify = work_in(machine.offered(ticket("a", 1), 0.0))
    machine.offered(ticket("b", 2), 1.0)
    assert machine.next_wake_s() == TIMES.stuck_s
    assert machine.tick(TIMES.stuck_s - 1) == []

    effects = machine.tick(TIMES.stuck_s)

    assert effects[0] == Cancel(verify.attempt)
    assert reports(effects) == [("a", "REJECTED", "SUPERSEDED"), ("b", "RECEIVED", "")]


def test_cut_off_activation_ends_in_last_known_good() -> None:
    """The cut may have come after the switch; then what runs was never found healthy."""
    machine = ApplyMachine(TIMES)
    make_healthy(machine, ticket("a", 1))
    activate = drive(machine, machine.offered(ticket("b", 2), 0.0), Activate)

    effects = machine.tick(TIMES.activating_s)

    assert effects == [Cancel(activate.attempt), Rollback(activate.attempt + 1)]
    done = machine.restored(activate.attempt + 1, ticket("a", 1).manifest_sha256, TIMES.activating_s)
    assert reports(done) == [("b", "REJECTED", "DEADLINE")]


@pytest.mark.parametrize("kind", [Verify, Stage, Activate, Soak, Promote])
def test_every_phase_has_a_deadline(kind: type[Work]) -> None:
    """Nothing that hangs keeps a node from its next configuration for ever."""
    machine = ApplyMachine(TIMES)
    drive(machine, machine.offered(ticket("a"), 0.0), kind)

    for _ in range(2):
        wake_s = machine.next_wake_s()
        if wake_s is not None and machine.phase is not Phase.IDLE:
            machine.tick(wake_s)

    assert machine.in_flight is None


def test_same_content_after_a_reconnect_goes_on_under_the_new_nonce() -> None:
    """Nonces die with the stream; work in progress does not."""
    machine = ApplyMachine(TIMES)
    soak = drive(machine, machine.offered(ticket("old"), 0.0), Soak)

    effects = machine.offered(ticket("new"), 0.0)

    assert reports(effects) == [("old", "REJECTED", "SUPERSEDED"), ("new", "SOAKING", "")]
    promote = work_in(machine.succeeded(soak.attempt, 0.0))
    assert reports(machine.succeeded(promote.attempt, 0.0)) == [("new", "HEALTHY", "")]


def test_last_known_good_is_brought_up_first_and_tried_again() -> None:
    """A tool server that is down when the node boots must not keep the node down for good."""
    machine = ApplyMachine(TIMES, healthy_sha256=b"good")
    now_s = 0.0
    work = work_in(machine.start(now_s))
    waits = []
    for _ in range(9):
        assert reports(machine.failed(work.attempt, UNHEALTHY, now_s)) == []
        wake_s = machine.next_wake_s()
        assert wake_s is not None
        waits.append(wake_s - now_s)
        now_s = wake_s
        work = work_in(machine.tick(now_s))

    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == TIMES.restore_last_s
    machine.restored(work.attempt, b"good", now_s)
    assert (machine.running_sha256, machine.next_wake_s()) == (b"good", None)


def test_rollback_to_nothing_that_fails_is_tried_again() -> None:
    """A sick first configuration must not run on because it could not be stopped at once."""
    machine = ApplyMachine(TIMES)
    soak = drive(machine, machine.offered(ticket("a"), 0.0), Soak)
    rollback = work_in(machine.failed(soak.attempt, UNHEALTHY, 0.0))

    machine.failed(rollback.attempt, Nack(code=tunnel.NACK_CODE_STORAGE_FAILED), 0.0)

    assert machine.next_wake_s() == TIMES.restore_first_s
    assert isinstance(work_in(machine.tick(TIMES.restore_first_s)), Rollback)


def test_outcome_of_an_earlier_attempt_is_ignored() -> None:
    """A thread that comes back late must not decide about somebody else's offer."""
    machine = ApplyMachine(TIMES)
    verify = work_in(machine.offered(ticket("a"), 0.0))
    machine.tick(TIMES.verifying_s)
    machine.offered(ticket("b", 2), TIMES.verifying_s)

    assert machine.succeeded(verify.attempt, TIMES.verifying_s) == []
    assert machine.failed(verify.attempt, UNHEALTHY, TIMES.verifying_s) == []


class Applying(RuleBasedStateMachine):
    """A node whose work succeeds, fails or hangs as hypothesis likes, under a stream of offers."""

    offered = Bundle("offered")

    def __init__(self) -> None:
        super().__init__()
        self.machine = ApplyMachine(TIMES)
        self.now_s = 0.0
        self.nonces = 0
        self.work: Work | None = None
        self.verified: set[bytes] = set()
        self.healthy = b""
        self.running = b""
        self.quarantined: set[bytes] = set()
        self.open: set[bytes] = set()
        self.ended: set[bytes] = set()
        self.revisions: dict[bytes, int] = {}

    def take(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Report):
                self.take_report(effect)
            elif isinstance(effect, Cancel):
                assert self.work is not None
                assert self.work.attempt == effect.attempt
                self.work = None
            else:
                self.take_work(effect)

    def take_report(self, report: Report) -> None:
        assert report.nonce in self.open, "a report is about an offer that has not ended"
        assert report.revision == self.revisions[report.nonce]
        assert (report.nack is not None) == (report.state in TERMINAL - {tunnel.APPLY_STATE_HEALTHY})
        if report.state in TERMINAL:
            self.open.remove(report.nonce)
            self.ended.add(report.nonce)

    def take_work(self, work: Work) -> None:
        assert self.work is None, "one piece of work at a time"
        self.work = work
        if isinstance(work, Activate):
            assert work.ticket.manifest_sha256 in self.verified, "only what was verified is activated"
            assert work.ticket.manifest_sha256 not in self.quarantined
        if isinstance(work, Rollback) and work.quarantine:
            self.quarantined.add(work.quarantine)

    @rule(target=offered, content=st.integers(1, 6))
    def offer(self, content: int) -> Ticket:
        self.nonces += 1
        new = ticket(f"n{self.nonces}", content)
        self.open.add(new.nonce)
        self.revisions[new.nonce] = content
        self.take(self.machine.offered(new, self.now_s))
        return new

    @rule(again=consumes(offered))
    def repeat(self, again: Ticket) -> None:
        """The network delivers an offer twice while it is open."""
        if again.nonce in self.open:
            self.take(self.machine.offered(again, self.now_s))

    @precondition(lambda self: self.work is not None)
    @rule()
    def succeed(self) -> None:
        work, self.work = self.work, None
        assert work is not None
        if isinstance(work, Rollback):
            self.running = self.healthy
            self.take(self.machine.restored(work.attempt, self.healthy, self.now_s))
            return
        digest = work.ticket.manifest_sha256
        if isinstance(work, Verify):
            self.verified.add(digest)
        if isinstance(work, Activate):
            self.running = digest
        if isinstance(work, Promote):
            self.healthy = digest
        self.take(self.machine.succeeded(work.attempt, self.now_s))

    @precondition(lambda self: self.work is not None)
    @rule()
    def fail(self) -> None:
        work, self.work = self.work, None
        assert work is not None
        self.take(self.machine.failed(work.attempt, UNHEALTHY, self.now_s))

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0, 130.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.take(self.machine.tick(self.now_s))

    @rule()
    def wake(self) -> None:
        """Time passes up to just when the machine asked for it."""
        wake_s = self.machine.next_wake_s()
        if wake_s is not None:
            self.now_s = max(self.now_s, wake_s)
            before = (self.machine.phase, self.machine.in_flight)
            effects = self.machine.tick(self.now_s)
            assert effects or before[0] is Phase.IDLE, "waking for nothing would spin"
            self.take(effects)

    @invariant()
    def running_is_verified(self) -> None:
        assert not self.running or self.running in self.verified
        assert self.machine.healthy_sha256 == self.healthy
        assert self.machine.running_sha256 in (b"", self.running)

    @invariant()
    def something_is_open_only_while_something_is_done(self) -> None:
        assert bool(self.work) == (self.machine.phase is not Phase.IDLE)
        assert len(self.open) <= 2

    def teardown(self) -> None:
        """Left alone, the machine ends what it began: every offer has had exactly one terminal report."""
        for _ in range(20):
            if self.machine.phase is Phase.IDLE:
                break
            self.wake()
        assert not self.open
        assert len(self.ended) == self.nonces


TestApplying = Applying.TestCase
TestApplying.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
