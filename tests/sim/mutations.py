"""Defects that somebody might make one day, put in one at a time, to prove that the simulator would say so.

A mutation replaces a piece of text in the source of one function and compiles that in its place, in memory.
"""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from data_plane.link.applier import Applier
from data_plane.link.apply_machine import ApplyMachine, Ticket
from data_plane.link.config_store import ConfigStore, StoredState
from data_plane.link.verifier import Verifier
from faos_core.disk import Disk
from tests.sim.world import Outcome, simulate
from tunnel.session import CloudSession, NodeSession

SEEDS = 400  # within which each is caught


@dataclass(frozen=True, slots=True)
class Mutation:
    """`old` stands once in the source of `owner.method` and becomes `new`. first: seed to look from, for rare ones."""

    name: str
    owner: type[Any]
    method: str
    old: str
    new: str
    first: int = 1


MUTATIONS = (
    Mutation(
        "a second offer while one is in flight",
        CloudSession,
        "_keeps_back",
        "now_s - offer.heard_at_s < self.preempt_s",
        "False",
    ),
    Mutation(
        "the same is offered twice",
        CloudSession,
        "_keeps_back",
        "offer.target == target or",
        "offer.target != target and",
    ),
    Mutation("what stands still keeps back for ever", CloudSession, "_keeps_back", "< self.preempt_s", "< 1e9"),
    Mutation("what was preempted is not listened to", CloudSession, "_reported_late", "if target is None:", "if True:"),
    Mutation("a withdrawn offer counts as sent", CloudSession, "withdraw", "self._in_flight.nonce == nonce", "False"),
    Mutation("a refusal is forgotten at once", CloudSession, "_reported", "self.refused |=", "_ ="),
    Mutation("recorded refusals are not asked for", CloudSession, "_settled", "or target.revision in", "or False and"),
    Mutation("what runs counts as healthy", CloudSession, "_is_there", "== facts.healthy_revision", ""),
    Mutation("nobody is told of a quarantine", CloudSession, "_park", "return [Record(", "return [] and [Record("),
    Mutation(
        "nobody is told who is there already", CloudSession, "_arrived", "return [Record(", "return [] and [Record("
    ),
    Mutation(
        "a full disk parks a revision", CloudSession, "_reported", "if _parks(status):", "if status.state in REFUSALS:"
    ),
    Mutation("a refusal that may pass never passes", CloudSession, "_reported", "+ TRANSIENT_RETRY_S", "+ 1e9"),
    Mutation("Hello is not listened to", CloudSession, "_greet", "self._learn(hello.config)", "pass"),
    Mutation("kinds are not looked at", CloudSession, "_next_offer", "target.kinds - frozenset(", "frozenset() and ("),
    Mutation("a silent control plane is trusted", NodeSession, "tick", "> limit_s", "> 1e9"),
    Mutation("no status is sent", NodeSession, "report", "if known", "if not known"),
    Mutation("last known good is not started", ApplyMachine, "start", "if self._healthy", "if False"),
    Mutation("what falls ill is not quarantined", ApplyMachine, "_fail", "self._phase is Phase.SOAKING)", "False)"),
    Mutation("quarantine is not looked at", ApplyMachine, "_next", "in self._quarantined", "in ()"),
    Mutation("who is stuck stays stuck", ApplyMachine, "_preempt_if_stuck", "stuck and", "False and"),
    Mutation("nothing is ever overdue", ApplyMachine, "tick", ">= self._began_s", ">= 1e9 + self._began_s"),
    Mutation(
        "nothing is watched",
        ApplyMachine,
        "_advance",
        "following = AFTER[self._phase]",
        ("following = Phase.PROMOTING if self._phase is Phase.ACTIVATING else AFTER[self._phase]"),
    ),
    Mutation("a restore is tried once", ApplyMachine, "_plan_restore", "= now_s + self._restore_wait_s", "= None"),
    Mutation("a failed rollback counts as done", ApplyMachine, "_fail", "self._running = None", "self._running = b''"),
    Mutation(
        "ill health is promoted",
        ApplyMachine,
        "_fail",
        "return self._roll_back(now_s, quarantine",
        (
            "return self._work(Phase.PROMOTING, now_s) if self._phase is Phase.SOAKING "
            "else self._roll_back(now_s, quarantine"
        ),
    ),
    Mutation(
        "deaths are not counted before they happen",
        Applier,
        "_activate",
        "await undivided(asyncio.to_thread(self._store.begin_trial, pointer))",
        "pass",
    ),
    Mutation("what kills is tried again", Applier, "_look_at_trial", "if not trial.count", "if True"),
    Mutation("deaths are counted once", ConfigStore, "begin_trial", "deaths + 1", "1"),
    Mutation("an end counts as a death", Applier, "_roll_back", "elif effect.ticket:", "elif False:"),
    Mutation("a failure counts as a death", ConfigStore, "end_trial", "else Trial()", "else self._state.trial"),
    Mutation("the ceiling is not asked", Applier, "_stage", "admit(", "(lambda *_: None)("),
    Mutation(
        "quarantine is not stored", Applier, "_roll_back", "self._store.quarantine(quarantine, effect.code)", "None"
    ),
    Mutation("healthy is what is attempted", Applier, "facts", "state.healthy.revision", "state.attempted.revision"),
    Mutation(
        "running is what is stored", Applier, "facts", "=self._activation.running().revision", "=state.running.revision"
    ),
    Mutation(
        "trust is not checked",
        Verifier,
        "_check_trust",
        "self.trust.check(",
        ("(lambda *_, work, **__: (work.mkdir(), (work / 'timestamp.json').write_bytes(b'0 0 0 0')))("),
    ),
    Mutation("a number is believed", Ticket, "is_same_revision", "(self.revision, ", "(other.revision, ", first=8669),
    Mutation("news that was overtaken is shown", CloudSession, "shows", "return is_newest", "return True", first=6124),
    Mutation("numbers need not agree", Verifier, "_complete", "manifest.revision != offer.revision", "False"),
    Mutation("the mark is not raised", ConfigStore, "commit_verified", ", high_water=pointer", ""),
    Mutation("metadata is not synced", ConfigStore, "_adopt", "self._disk.sync_tree(work)", "pass"),
    Mutation(
        "bodies are not kept",
        ConfigStore,
        "commit_verified",
        "for sha256, data in blobs.items()",
        "for sha256, data in ()",
    ),
    Mutation("last known good is garbage", StoredState, "pointers", ", self.healthy", ""),
    Mutation("names are not synced", Disk, "put", "if files:", "if False:"),
    Mutation(
        "files are replaced in place",
        Disk,
        "put",
        "self.rename(temporary, folder / name)",
        ("self.remove(temporary); self.remove(folder / name); self.write(folder / name, data)"),
    ),
)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """With the defect in it. Not for more than one thread."""
    original = inspect.getattr_static(mutation.owner, mutation.method)
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(mutation.old) == 1, (
        f"{mutation.name}: {mutation.old!r} stands {source.count(mutation.old)} times"
    )
    names: dict[str, Any] = {}
    exec(source.replace(mutation.old, mutation.new), original.__globals__, names)
    setattr(mutation.owner, mutation.method, names[mutation.method])
    try:
        yield
    finally:
        setattr(mutation.owner, mutation.method, original)


def caught_by(mutation: Mutation, *, first: int = 1, seeds: int = SEEDS) -> Outcome | None:
    """The first seed that finds it; None when none does."""
    first = max(first, mutation.first)
    with mutated(mutation):
        outcomes = (simulate(seed) for seed in range(first, first + seeds))
        return next((outcome for outcome in outcomes if outcome.violations), None)
