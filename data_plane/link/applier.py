"""The shell around the apply machine: performs its effects, keeps its time, and says what became of it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from data_plane.ceiling.models import Ceiling
from data_plane.link import errors
from data_plane.link.admission import admit
from data_plane.link.apply_machine import (
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
from data_plane.link.config_store import ConfigStore, Pointer, quarantine_of
from data_plane.link.interfaces import Activation, BlobSource, Configuration, ConfigurationError, HealthProbe
from data_plane.link.outbox import StatusOutbox
from data_plane.link.selection import digest
from data_plane.link.trust import Trust
from data_plane.link.verifier import Verifier
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos.tunnel.v1.tunnel_pb2 import ApplyStatus, ConfigFacts, ConfigOffer, Nack, NackCode
from faos_core import names, trace_context
from faos_core.clock import Clock
from faos_core.errors import ErrorCode, FaosError
from faos_core.kinds import kind_name
from faos_core.lifecycle import undivided
from faos_core.names import Attribute, Span
from faos_core.timestamps import timestamp
from faos_core.tracing import OFF, Tracer, Word

log = logging.getLogger(__name__)

SPANS: Mapping[type[Work], Span] = {
    Verify: Span.CONFIG_VERIFY,
    Stage: Span.CONFIG_STAGE,
    Activate: Span.CONFIG_ACTIVATE,
    Soak: Span.CONFIG_SOAK,
    Promote: Span.CONFIG_PROMOTE,
    Rollback: Span.CONFIG_ROLL_BACK,
}
# Alarms that say more than that an offer was refused.
REJECTIONS: Mapping[int, ErrorCode] = {
    tunnel.NACK_CODE_METADATA_EXPIRED: errors.METADATA_EXPIRED,
    tunnel.NACK_CODE_APPROVAL_REQUIRED: errors.APPROVAL_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """soak_s: how long a new configuration is watched before it is last known good; poll_s: between two looks.
    most_deaths: of this process during activation or soak of the same content, before it is put in quarantine."""

    soak_s: float = 30.0
    poll_s: float = 0.25
    most_deaths: int = 2
    deadlines: Deadlines = field(default_factory=Deadlines)


@dataclass(frozen=True, slots=True)
class NodeScope:
    """What this node was enrolled as, as far as configuration goes."""

    tenant: str
    labels: Mapping[str, str]


class Applier:
    """Applies offers one at a time, the newest first, and keeps last known good running. A lifecycle.Service.

    `ready` is set when last known good runs, or could not be made to run (see `alarms`); start the link after
    that. `offer`, `facts`, `known_sha256` and `alarms` may be called once ready; all belong to the event loop.
    Cancelling `run` stops the work in progress; what runs keeps running until its owner stops it.
    Damaged state ends `run` with IntegrityError before anything is activated.
    """

    name = "configuration"

    def __init__(
        self,
        *,
        store: ConfigStore,
        trust: Trust,
        activation: Activation,
        health: HealthProbe,
        blobs: BlobSource,
        ceiling: Ceiling,
        scope: NodeScope,
        clock: Clock,
        settings: ApplySettings | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        self.ready = asyncio.Event()
        self._tracer = tracer
        self.statuses = StatusOutbox()
        self._store = store
        self._activation = activation
        self._health = health
        self._ceiling = ceiling
        self._labels = scope.labels
        self._clock = clock
        self._settings = settings or ApplySettings()
        self._verifier = Verifier(store, trust, blobs, clock, scope.tenant, scope.labels)
        self._machine = ApplyMachine(self._settings.deadlines)
        self._changed = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._work: asyncio.Task[None] | None = None
        self._attempted_revision = 0
        self._alarms: set[str] = set()
        self._is_stopping = False

    # ---- what others use

    async def run(self) -> None:
        await undivided(asyncio.to_thread(self._store.open))
        deadly = await self._look_at_trial()
        state = self._store.state
        self._attempted_revision = state.attempted.revision
        self._machine = ApplyMachine(
            self._settings.deadlines,
            healthy_sha256=state.healthy.manifest_sha256,
            healthy_revision=state.healthy.revision,
            quarantined=frozenset(state.quarantined) | deadly,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._perform_all(self._machine.start(self._clock.monotonic_s()))
                await self._keep_time()
        finally:
            if self._is_stopping:
                await self._try(self._store.end_trial)

    def stopping(self) -> None:
        """The process is about to end because somebody asked it to: what is being tried has not killed it."""
        self._is_stopping = True

    async def _look_at_trial(self) -> frozenset[bytes]:
        """What the process before this one died of; put in quarantine when it was not the first to."""
        state = self._store.state
        trial = state.trial
        if not trial.count:
            return frozenset()
        log.warning("config.died_trying", extra={names.REVISION: state.attempted.revision, names.SIZE: trial.count})
        if trial.count < self._settings.most_deaths:
            return frozenset()
        self._alarm(errors.OFFER_KILLED)
        await self._try(lambda: self._store.quarantine(trial.manifest_sha256, tunnel.NACK_CODE_CRASHED))
        return frozenset({trial.manifest_sha256})

    async def offer(self, offer: ConfigOffer) -> None:
        """Take up an offer. Returns at once; `statuses` says what becomes of it. Raises nothing: refusals are NACKs."""
        ticket = Ticket(offer.nonce, offer.revision, digest(offer.manifest), offer)
        self._perform_all(self._machine.offered(ticket, self._clock.monotonic_s()))

    def facts(self) -> ConfigFacts:
        """For Hello and for every status."""
        state = self._store.state
        quarantine = quarantine_of(state)
        return ConfigFacts(
            attempted_revision=self._attempted_revision,
            running_revision=self._activation.running().revision,
            running_manifest_sha256=self._activation.running().manifest_sha256,
            healthy_revision=state.healthy.revision,
            high_water_revision=state.high_water.revision,
            quarantined_manifest_sha256=quarantine.keys(),
            quarantined_code=[NackCode.ValueType(code) for code in quarantine.values()],
        )

    def known_sha256(self) -> list[bytes]:
        """The blobs that an offer need not carry."""
        return sorted(self._store.known_blobs())

    def alarms(self) -> tuple[str, ...]:
        """Codes of the registry that need somebody's attention."""
        return tuple(sorted(self._alarms))

    # ---- time

    async def _keep_time(self) -> None:
        """Tick when the machine asks for it. Never returns."""
        while True:
            if self._machine.phase is Phase.IDLE:
                self.ready.set()
            self._changed.clear()
            await self._until(self._machine.next_wake_s())
            self._perform_all(self._machine.tick(self._clock.monotonic_s()))

    async def _until(self, wake_s: float | None) -> None:
        """Return at the time, or when the machine has changed."""
        if wake_s is None:
            await self._changed.wait()
            return
        sleep = asyncio.ensure_future(self._clock.sleep(max(0.0, wake_s - self._clock.monotonic_s())))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([sleep, change], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()

    # ---- effects

    def _perform_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Report():
                    self._report(effect)
                case Cancel():
                    if self._work:
                        self._work.cancel()
                case _:
                    self._begin(effect)
        self._changed.set()

    def _report(self, report: Report) -> None:
        """Never waits: whether anyone listens changes nothing here."""
        self._judge(report)
        self.statuses.put(
            ApplyStatus(
                nonce=report.nonce,
                revision=report.revision,
                state=report.state,
                nack=report.nack,
                config=self.facts(),
                at=timestamp(self._clock.now()),
            )
        )
        state = tunnel.ApplyState.Name(report.state)
        fields: dict[str, object] = {names.REVISION: report.revision, names.STATE: state}
        if nack := report.nack:
            fields |= {names.CODE: tunnel.NackCode.Name(nack.code), names.KIND: kind_name(nack.kind)}
            fields |= {names.RESOURCE: nack.resource_name}
        log.info("config.status", extra=fields)

    def _judge(self, report: Report) -> None:
        """Raise or lower the alarms that an outcome is about."""
        if report.nack and report.nack.code == tunnel.NACK_CODE_SUPERSEDED:
            return
        match report.state:
            case tunnel.APPLY_STATE_HEALTHY:
                self._alarms.clear()
            case tunnel.APPLY_STATE_REJECTED:
                self._alarm(REJECTIONS.get(report.nack.code if report.nack else 0, errors.OFFER_REJECTED))
            case tunnel.APPLY_STATE_ROLLED_BACK:
                self._alarm(errors.OFFER_ROLLED_BACK)

    def _alarm(self, code: ErrorCode) -> None:
        self._alarms.add(code.code)

    def _begin(self, effect: Work) -> None:
        assert self._tasks is not None, "offers come after run() is ready"
        self._work = self._tasks.create_task(self._supervise(effect, self._work), name=type(effect).__name__)

    async def _supervise(self, effect: Work, previous: asyncio.Task[None] | None) -> None:
        """One piece of work after the one before has ended; its outcome goes to the machine. Only cancelling raises."""
        if previous and not previous.done():
            await asyncio.wait([previous])
        try:
            await self._do_traced(effect)
        except ConfigurationError as error:
            self._fail(effect, error.nack)
        except OSError:
            log.exception("config.storage_failed", extra={names.PHASE: type(effect).__name__})
            self._fail(effect, Nack(code=tunnel.NACK_CODE_STORAGE_FAILED))
        except FaosError as error:
            log.exception("config.work_failed", extra={names.CODE: error.code.code})
            self._fail(effect, Nack(code=tunnel.NACK_CODE_INTERNAL))
        except Exception:  # the supervisor of all configuration work
            log.exception("config.work_broke", extra={names.PHASE: type(effect).__name__})
            self._fail(effect, Nack(code=tunnel.NACK_CODE_INTERNAL))
        else:
            self._succeed(effect)

    def _succeed(self, effect: Work) -> None:
        now_s = self._clock.monotonic_s()
        if isinstance(effect, Rollback):
            self._alarms.discard(errors.NOTHING_RUNS.code)
            healthy = self._store.state.healthy.manifest_sha256
            self._perform_all(self._machine.restored(effect.attempt, healthy, now_s))
        else:
            self._perform_all(self._machine.succeeded(effect.attempt, now_s))

    def _fail(self, effect: Work, nack: Nack) -> None:
        if isinstance(effect, Rollback):
            self._alarm(errors.NOTHING_RUNS)
            log.error("config.restore_failed", extra={names.CODE: tunnel.NackCode.Name(nack.code)})
        self._perform_all(self._machine.failed(effect.attempt, nack, self._clock.monotonic_s()))

    async def _do_traced(self, effect: Work) -> None:
        """In the trace of the change that made the revision; a mere restore in one of its own."""
        offer = effect.ticket.offer if effect.ticket else ConfigOffer()
        attributes = {Attribute.REVISION_NUMBER: offer.revision}
        parent = trace_context.parse(offer.traceparent)
        with self._tracer.span(SPANS[type(effect)], attributes, parent=parent) as span:
            try:
                await self._do(effect)
            except ConfigurationError as error:
                span.set(Attribute.STATE_NAME, Word(NackCode.Name(error.nack.code)))
                raise

    async def _do(self, effect: Work) -> None:
        match effect:
            case Verify():
                self._attempted_revision = effect.ticket.revision
                await self._verifier.verify(effect.ticket.offer)
            case Stage():
                await undivided(asyncio.to_thread(self._stage, _pointer(effect.ticket)))
            case Activate():
                await self._activate(_pointer(effect.ticket))
            case Soak():
                await self._soak()
            case Promote():
                await undivided(asyncio.to_thread(self._store.mark_healthy, _pointer(effect.ticket)))
                await self._try(self._store.collect_garbage)
            case Rollback():
                await self._roll_back(effect)

    def _stage(self, pointer: Pointer) -> None:
        admit(self._store.resources(pointer, self._labels), self._ceiling, self._taken_before())
        self._store.record(tunnel.APPLY_STATE_STAGED)

    def _taken_before(self) -> Configuration:
        """Last known good; nothing where that cannot be read, so that everything needs the site's yes again."""
        try:
            return self._store.last_known_good(self._labels)
        except (FaosError, ConfigurationError):
            return Configuration()

    async def _activate(self, pointer: Pointer) -> None:
        configuration = await undivided(asyncio.to_thread(self._store.configuration, pointer, self._labels))
        await undivided(asyncio.to_thread(self._store.begin_trial, pointer))
        try:
            await self._switch(configuration, pointer)
        except Exception:
            await self._try(self._store.end_trial)
            raise

    async def _switch(self, configuration: Configuration, pointer: Pointer) -> None:
        await self._activation.activate(configuration)
        await self._try(lambda: self._store.mark_running(pointer))

    async def _soak(self) -> None:
        """Watch until the soak is over. Raises ConfigurationError at the first sign of ill health."""
        end_s = self._clock.monotonic_s() + self._settings.soak_s
        while True:
            if nack := self._health():
                raise ConfigurationError(nack)
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            await self._clock.sleep(min(left_s, self._settings.poll_s))

    async def _roll_back(self, effect: Rollback) -> None:
        """Back to last known good; nothing to do when that still runs."""
        if quarantine := effect.quarantine:
            await self._try(lambda: self._store.quarantine(quarantine, effect.code))
        elif effect.ticket:
            await self._try(self._store.end_trial)
        pointer = self._store.state.healthy
        if self._activation.running().manifest_sha256 == pointer.manifest_sha256:
            return
        configuration = await undivided(asyncio.to_thread(self._store.last_known_good, self._labels))
        await self._switch(configuration, pointer)

    async def _try(self, step: Callable[[], None]) -> None:
        """A durable step whose failure changes nothing about what runs: said, not acted upon."""
        try:
            await undivided(asyncio.to_thread(step))
        except (OSError, FaosError):
            log.exception("config.record_failed")


def _pointer(ticket: Ticket) -> Pointer:
    return Pointer(ticket.revision, ticket.manifest_sha256)
