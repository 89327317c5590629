"""The session machines, alone and against each other."""

import hashlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tunnel import session
from tunnel.session import CloudSession, NodeSession, Phase, Target

KINDS = [1, 2, 3]


def digest(revision: int) -> bytes:
    return hashlib.sha256(str(revision).encode()).digest()


def target(revision: int, kinds: frozenset[int] = frozenset({1})) -> Target:
    return Target(revision, digest(revision), kinds)


def cloud(**fields: object) -> CloudSession:
    return CloudSession(b"session1", 15.0, 0.0, **fields)  # type: ignore[arg-type]  # keywords of the dataclass


def hello(running: int = 0, quarantined: tuple[bytes, ...] = (), healthy: int | None = None) -> tunnel.NodeFrame:
    """healthy: None for what runs."""
    good = running if healthy is None else healthy
    facts = tunnel.ConfigFacts(running_revision=running, healthy_revision=good, quarantined_manifest_sha256=quarantined)
    return tunnel.NodeFrame(hello=tunnel.Hello(kinds=KINDS, config=facts))


def status(nonce: bytes, state: tunnel.ApplyState.ValueType, running: int, revision: int = 1) -> tunnel.NodeFrame:
    facts = tunnel.ConfigFacts(running_revision=running, healthy_revision=running)
    body = tunnel.ApplyStatus(nonce=nonce, revision=revision, state=state, config=facts)
    return tunnel.NodeFrame(apply_status=body)


def offers(effects: list[session.CloudEffect]) -> list[session.Offer]:
    return [effect for effect in effects if isinstance(effect, session.Offer)]


def closes(effects: list[session.CloudEffect]) -> bool:
    return any(isinstance(effect, session.Close) for effect in effects)


def test_first_frame_other_than_hello_closes() -> None:
    """Nothing is believed of a node that has not said what it is."""
    machine = cloud()

    effects = machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), 1.0)

    assert closes(effects)
    assert machine.phase is Phase.CLOSED
    assert machine.receive(hello(), 2.0) == []


def test_second_hello_closes() -> None:
    """Hello opens a stream; a node that starts over opens a new one."""
    machine = cloud()
    machine.receive(hello(), 1.0)

    assert closes(machine.receive(hello(), 2.0))


def test_hello_is_answered_and_followed_by_the_offer() -> None:
    """A node that connects gets what it lacks without asking."""
    machine = cloud(target=target(1))

    effects = machine.receive(hello(), 1.0)

    assert isinstance(effects[0], session.Greet)
    assert [offer.target.revision for offer in offers(effects)] == [1]


def test_node_that_runs_the_target_is_offered_nothing() -> None:
    """Reconnecting costs no configuration; that it got there while nobody listened is recorded."""
    effects = cloud(target=target(4)).receive(hello(running=4), 1.0)

    assert offers(effects) == []
    [said] = [effect.status for effect in effects if isinstance(effect, session.Record)]
    assert (said.revision, said.state) == (4, tunnel.APPLY_STATE_HEALTHY)


def test_revision_that_is_still_watched_after_a_reconnect_is_offered_again() -> None:
    """Otherwise nobody would hear that it became healthy, or was rolled back."""
    machine = cloud(target=target(4))

    assert [offer.target.revision for offer in offers(machine.receive(hello(running=4, healthy=3), 1.0))] == [4]


def test_only_one_offer_is_in_flight_and_the_newest_follows() -> None:
    """What was superseded while a node was busy is never sent."""
    machine = cloud(target=target(1))
    [first] = offers(machine.receive(hello(), 1.0))

    assert machine.desire(target(2), 2.0) == []
    assert machine.desire(target(3), 3.0) == []
    effects = machine.receive(status(first.nonce, tunnel.APPLY_STATE_HEALTHY, 1), 4.0)

    assert [offer.target.revision for offer in offers(effects)] == [3]


def test_refused_revision_is_parked_until_content_changes() -> None:
    """A NACK must not become a loop of offers."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))

    assert offers(machine.receive(status(offer.nonce, tunnel.APPLY_STATE_REJECTED, 0), 2.0)) == []
    assert machine.desire(target(1), 3.0) == []
    assert [found.target.revision for found in offers(machine.desire(target(2), 4.0))] == [2]


def test_a_refusal_that_may_pass_is_offered_again_later_and_not_at_once() -> None:
    """A full disk or a slow machine says nothing about the content."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))
    refusal = status(offer.nonce, tunnel.APPLY_STATE_REJECTED, 0)
    refusal.apply_status.nack.code = tunnel.NACK_CODE_STORAGE_FAILED

    assert offers(machine.receive(refusal, 2.0)) == []
    assert offers(machine.desire(target(1), 3.0)) == []
    assert offers(machine.tick(30.0)) == []
    machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), 40.0)
    assert [again.target.revision for again in offers(machine.tick(62.1))] == [1]


def test_revision_refused_in_an_earlier_session_stays_parked() -> None:
    """Reconnecting is not new content."""
    assert offers(cloud(target=target(1), refused=frozenset({1})).receive(hello(), 1.0)) == []


def test_quarantined_manifest_is_not_offered() -> None:
    """The node said which content it gave up on, maybe while nobody listened: the operator is told now, once."""
    machine = cloud(target=target(1))

    effects = machine.receive(hello(quarantined=(digest(1),)), 1.0)

    assert offers(effects) == []
    [said] = [effect.status for effect in effects if isinstance(effect, session.Record)]
    assert (said.revision, said.state) == (1, tunnel.APPLY_STATE_ROLLED_BACK)
    assert said.nack.code == tunnel.NACK_CODE_QUARANTINED
    assert machine.tick(1.1) == []


def test_refusal_of_a_revision_that_came_instead_of_the_target_parks_that_one() -> None:
    """What stands when an offer is made may be newer than what it was decided for."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))
    machine.desire(target(2), 1.5)

    effects = machine.receive(status(offer.nonce, tunnel.APPLY_STATE_REJECTED, 0, revision=2), 2.0)

    assert offers(effects) == []


def test_newer_target_preempts_an_offer_that_stands_still_and_no_other() -> None:
    """A model that takes an hour to load must not keep the correction of its name from the node."""
    machine = cloud(target=target(1))
    [first] = offers(machine.receive(hello(), 0.0))

    assert machine.desire(target(2), 10.0) == []
    machine.receive(status(first.nonce, tunnel.APPLY_STATE_APPLYING, 0), 20.0)
    assert offers(machine.tick(20.0 + session.PREEMPT_S - 0.1)) == []
    [second] = offers(machine.tick(20.0 + session.PREEMPT_S))
    assert second.target == target(2)
    machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), 60.0)
    assert offers(machine.tick(90.0)) == [], "the same one is not offered again"


def test_refusal_of_a_preempted_offer_is_recorded_and_parks_that_one_alone() -> None:
    """Nobody waits for it any more, and yet it says why a revision does not work."""
    machine = cloud(target=target(1))
    [first] = offers(machine.receive(hello(), 0.0))
    machine.desire(target(2), 1.0)
    [second] = offers(machine.tick(session.PREEMPT_S))

    late = status(first.nonce, tunnel.APPLY_STATE_ROLLED_BACK, 0)
    late.apply_status.nack.code = tunnel.NACK_CODE_TOOL_SERVER_FAILED
    assert machine.receive(late, 31.0) == [session.Record(late.apply_status)]
    assert machine.receive(late, 31.5) == [], "its end was heard"
    done = status(second.nonce, tunnel.APPLY_STATE_HEALTHY, 2, revision=2)
    assert machine.receive(done, 32.0) == [session.Record(done.apply_status)]
    assert machine.desire(target(1), 33.0) == []


def test_offers_whose_end_nobody_hears_do_not_pile_up() -> None:
    """A node that swallows offers for weeks costs no memory."""
    machine = cloud(target=target(1))
    machine.receive(hello(), 0.0)

    for revision in range(2, 40):
        now_s = revision * 40.0
        machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), now_s)
        assert len(offers(machine.desire(target(revision), now_s))) == 1
    assert len(machine._preempted) == session.MOST_PREEMPTED


def test_refusal_that_may_pass_does_not_hold_back_a_newer_target() -> None:
    """The pause is for trying the same again."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))
    machine.desire(target(2), 2.0)
    refusal = status(offer.nonce, tunnel.APPLY_STATE_REJECTED, 0)
    refusal.apply_status.nack.code = tunnel.NACK_CODE_DEADLINE

    assert [each.target.revision for each in offers(machine.receive(refusal, 3.0))] == [2]


def test_offer_that_was_overtaken_before_it_was_sent_is_made_for_the_newer_target() -> None:
    """Else kinds would go to a node that nobody compared with what it knows."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))

    newer = target(2, frozenset({1, 9}))
    assert machine.withdraw(offer.nonce, newer, 1.1) == [session.HeldBack(newer, frozenset({9}))]
    assert [each.target for each in offers(machine.withdraw(offer.nonce, target(3), 1.2))] == [target(3)]


def test_word_that_was_overtaken_while_it_waited_is_not_what_the_node_shows() -> None:
    """Writes take time, and a revision that a node is too old for must not be hidden by news of the one before."""
    machine = cloud(target=target(1))
    [offer] = offers(machine.receive(hello(), 1.0))
    machine.desire(target(2, frozenset({9})), 1.5)
    done = status(offer.nonce, tunnel.APPLY_STATE_HEALTHY, 1)
    recorded, held_back = machine.receive(done, 2.0)
    assert isinstance(recorded, session.Record)
    assert isinstance(held_back, session.HeldBack)

    assert machine.shows(recorded)
    [newer] = machine.desire(target(3, frozenset({9})), 2.1)
    assert isinstance(newer, session.HeldBack)
    assert machine.shows(newer)
    assert not machine.shows(held_back)


def heartbeat(running: int, healthy: int) -> tunnel.NodeFrame:
    facts = tunnel.ConfigFacts(running_revision=running, healthy_revision=healthy)
    return tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat(config=facts))


def test_heartbeat_tells_that_the_node_got_there_and_is_recorded_once() -> None:
    """Last known good that comes back up by itself is no answer to an offer."""
    machine = cloud(target=target(4), refused=frozenset({4}))
    machine.receive(hello(running=0, healthy=4), 1.0)

    told = machine.receive(heartbeat(4, 4), 2.0)
    [said] = [effect.status for effect in told if isinstance(effect, session.Record)]
    assert (said.revision, said.state) == (4, tunnel.APPLY_STATE_HEALTHY)
    assert [type(effect) for effect in machine.receive(heartbeat(4, 4), 3.0)] == [session.Progress]


def test_heartbeat_of_an_older_node_tells_nothing_of_its_configuration() -> None:
    """Absent is not zero: the node of the version before says nothing there."""
    machine = cloud(target=target(4))
    machine.receive(hello(running=4), 1.0)

    machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), 2.0)
    assert offers(machine.tick(3.0)) == []


def test_quarantine_is_recorded_with_the_reason_that_the_node_gives() -> None:
    """The node's process died of it: no status could say so."""
    machine = cloud(target=target(1))
    frame = hello(quarantined=(digest(7), digest(1)))
    codes = [tunnel.NACK_CODE_UNSPECIFIED, tunnel.NACK_CODE_CRASHED]
    frame.hello.config.quarantined_code.extend(codes)

    [said] = [effect.status for effect in machine.receive(frame, 1.0) if isinstance(effect, session.Record)]
    assert (said.state, said.nack.code) == (tunnel.APPLY_STATE_ROLLED_BACK, tunnel.NACK_CODE_CRASHED)


def test_kinds_that_the_node_cannot_parse_are_held_back_and_shown_once() -> None:
    """An old node keeps what it runs, and the operator sees why."""
    machine = cloud(target=target(1, frozenset({1, 9})))

    effects = machine.receive(hello(), 1.0)

    assert offers(effects) == []
    assert [effect.kinds for effect in effects if isinstance(effect, session.HeldBack)] == [frozenset({9})]
    assert machine.desire(machine.target, 2.0) == []


def test_status_with_a_nonce_of_another_stream_changes_nothing() -> None:
    """Nonces die with their stream."""
    machine = cloud(target=target(1))
    machine.receive(hello(), 1.0)

    assert machine.receive(status(b"session0" + (1).to_bytes(4), tunnel.APPLY_STATE_HEALTHY, 1), 2.0) == []


def test_silent_node_is_closed_and_a_beating_one_is_not() -> None:
    """Liveness is what the console shows; it must be neither stale nor nervous."""
    machine = cloud()
    machine.receive(hello(), 0.0)

    for now_s in range(15, 200, 15):
        machine.receive(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()), float(now_s))
        assert not closes(machine.tick(now_s + 1.0))
    assert closes(machine.tick(195.0 + 46.0))


def test_node_that_never_says_hello_is_closed() -> None:
    """A stream that only sits there is cut."""
    machine = cloud()

    assert not closes(machine.tick(session.HELLO_DEADLINE_S))
    assert closes(machine.tick(session.HELLO_DEADLINE_S + 0.1))


def test_node_reports_only_nonces_of_its_own_stream() -> None:
    """A status of an older stream is told by the next Hello instead."""
    node = NodeSession(0.0)
    node.open()
    node.receive(tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=15)), 1.0)
    node.receive(tunnel.CloudFrame(config_offer=tunnel.ConfigOffer(nonce=b"here")), 2.0)

    assert node.report(tunnel.ApplyStatus(nonce=b"there")) == []
    assert node.report(tunnel.ApplyStatus(nonce=b"here")) == [session.SendStatus(tunnel.ApplyStatus(nonce=b"here"))]


def test_node_obeys_a_drain_and_its_delay() -> None:
    """A control plane that stops says when to come back."""
    node = NodeSession(0.0)
    node.open()

    [close] = node.receive(tunnel.CloudFrame(drain=tunnel.Drain(retry_after_seconds=7)), 1.0)

    assert isinstance(close, session.Close)
    assert close.retry_after_s == 7.0


def test_node_closes_when_the_cloud_is_silent_and_beats_meanwhile() -> None:
    """A half-open connection is noticed."""
    node = NodeSession(0.0)
    node.open()
    node.receive(tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=10)), 0.0)

    assert [type(effect) for effect in node.tick(10.0)] == [session.SendHeartbeat]
    assert node.tick(10.5) == []
    assert [type(effect) for effect in node.tick(30.1)] == [session.Close]


class Conversation(RuleBasedStateMachine):
    """Both machines over a lossless, ordered stream that may be cut and opened again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.revision = 0
        self.running = 0
        self.refused: set[int] = set()
        self.streams = 0
        self.up: list[tunnel.NodeFrame] = []
        self.down: list[tunnel.CloudFrame] = []
        self.pending: list[tunnel.ConfigOffer] = []
        self.in_flight: set[bytes] = set()
        self.heard_s = 0.0  # when the newest offer was made, or the node last said something of it
        self.reconnect()

    @rule()
    def reconnect(self) -> None:
        self.streams += 1
        self.up, self.down, self.pending, self.in_flight = [], [], [], set()
        wanted = target(self.revision) if self.revision else None
        identifier = self.streams.to_bytes(8)
        self.cloud = CloudSession(identifier, 15.0, self.now_s, target=wanted, refused=frozenset(self.refused))
        self.node = NodeSession(self.now_s)
        self.node_effects(self.node.open())

    @rule()
    def apply(self) -> None:
        self.revision += 1
        self.cloud_effects(self.cloud.desire(target(self.revision), self.now_s))

    @precondition(lambda self: self.up)
    @rule()
    def deliver_up(self) -> None:
        self.cloud_effects(self.cloud.receive(self.up.pop(0), self.now_s))

    @precondition(lambda self: self.down)
    @rule()
    def deliver_down(self) -> None:
        self.node_effects(self.node.receive(self.down.pop(0), self.now_s))

    @precondition(lambda self: self.pending)
    @rule(works=st.booleans())
    def finish(self, works: bool) -> None:
        offer = self.pending.pop(0)
        if works:
            self.running = offer.revision
        else:
            self.refused.add(offer.revision)
        state = tunnel.APPLY_STATE_HEALTHY if works else tunnel.APPLY_STATE_REJECTED
        facts = tunnel.ConfigFacts(running_revision=self.running, healthy_revision=self.running)
        report = tunnel.ApplyStatus(nonce=offer.nonce, revision=offer.revision, state=state, config=facts)
        self.node_effects(self.node.report(report))

    @rule(step_s=st.floats(0.1, 5.0))
    def pass_time(self, step_s: float) -> None:
        self.now_s += step_s
        self.node_effects(self.node.tick(self.now_s))
        self.cloud_effects(self.cloud.tick(self.now_s))
        if Phase.CLOSED in (self.node.phase, self.cloud.phase):
            self.reconnect()

    @invariant()
    def one_offer_is_waited_for(self) -> None:
        assert self.cloud._in_flight is None or self.cloud._in_flight.nonce not in self.cloud._preempted
        assert self.in_flight <= {*self.cloud._preempted, getattr(self.cloud._in_flight, "nonce", b"")}

    def teardown(self) -> None:
        """Left alone on an unbroken stream, the node ends at the newest revision, or refused it."""
        self.reconnect()
        while self.up or self.down or self.pending:
            for ready, step in ((self.up, self.deliver_up), (self.down, self.deliver_down)):
                if ready:
                    step()
            if self.pending:
                self.finish(works=True)
        assert self.running == self.revision or self.revision in self.refused

    def cloud_effects(self, effects: list[session.CloudEffect]) -> None:
        for effect in effects:
            match effect:
                case session.Greet():
                    self.down.append(tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=15)))
                case session.Offer(wanted, nonce):
                    assert wanted.revision not in self.refused, "a refused revision was offered again"
                    stood_still = self.now_s - self.heard_s >= session.PREEMPT_S
                    assert stood_still or not self.in_flight, "a second offer while one is in flight"
                    self.heard_s = self.now_s
                    self.in_flight.add(nonce)
                    offer = tunnel.ConfigOffer(nonce=nonce, revision=wanted.revision)
                    self.down.append(tunnel.CloudFrame(config_offer=offer))
                case session.Record(report) if report.state in session.TERMINAL:
                    self.in_flight.discard(report.nonce)
                case session.Beat():
                    self.down.append(tunnel.CloudFrame(heartbeat=tunnel.CloudHeartbeat()))

    def node_effects(self, effects: object) -> None:
        for effect in effects:  # type: ignore[attr-defined]  # a sequence of NodeEffect
            match effect:
                case session.SendHello():
                    self.up.append(hello(running=self.running))
                case session.SendStatus(report):
                    self.up.append(tunnel.NodeFrame(apply_status=report))
                case session.SendHeartbeat():
                    self.up.append(tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat()))
                case session.Deliver(offer):
                    self.pending.append(offer)


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestConversation = Conversation.TestCase


def test_offers_without_end_cost_a_node_no_memory() -> None:
    """Whoever holds the control plane can make up nonces as fast as the line carries them."""
    machine = NodeSession(0.0)
    machine.open()
    machine.receive(tunnel.CloudFrame(welcome=tunnel.Welcome(heartbeat_seconds=1)), 0.0)

    for number in range(10 * session.MOST_NONCES):
        offer = tunnel.ConfigOffer(nonce=number.to_bytes(4))
        machine.receive(tunnel.CloudFrame(config_offer=offer), 0.0)

    assert len(machine._nonces) == session.MOST_NONCES
    assert machine.report(tunnel.ApplyStatus(nonce=number.to_bytes(4)))
