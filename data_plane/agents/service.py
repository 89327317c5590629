"""Runs of agents as a service: admission, supervision, live events, and taking up what a crash cut off.

A run goes on by the definition that it started with for as long as this process lives, whatever revision is
activated meanwhile: its plan is immutable and in memory. What it may do with tools is judged by the running revision
all the same. After a restart there is only the running revision; a run of another one goes on with that, and each
step from there on carries its number in its request (`revision`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from data_plane.agents import events
from data_plane.agents.broadcast import Broadcast, Make
from data_plane.agents.errors import AGENT_GONE, AGENT_UNKNOWN, RUN_DEFECT, SERVICE_STOPPED, TOO_MANY_RUNS
from data_plane.agents.events import RunRecord
from data_plane.agents.interfaces import RunCounts
from data_plane.agents.journal import Journal, NewRun, OpenRun
from data_plane.agents.loop import decide
from data_plane.agents.outages import passes
from data_plane.agents.perform import Performer, Ports
from data_plane.agents.plan import Plan, make_plan
from data_plane.agents.run import DATABASE_RETRY_S, RunDriver
from data_plane.agents.sight import RunSight
from data_plane.agents.steps import Ending, RecordedStep, RunState
from data_plane.ceiling.models import Limits
from data_plane.link.interfaces import Configuration
from faos.site.v1 import site_pb2 as site
from faos_core import names
from faos_core.clock import Clock
from faos_core.errors import FaosError, InternalError, LimitError, NotFoundError, UnavailableError
from faos_core.ids import RunId
from faos_core.tracing import OFF, Tracer

log = logging.getLogger(__name__)

DEFAULT_PAGE = 50
CANCEL_WAIT_S = 5.0  # for what a cancelled run has under way to let go
LARGEST_PAGE = 1000
T = TypeVar("T")


class Runs:
    """The RunService of a node. Runs belong to the task group of `run()`; cancelling it leaves them for the next
    start, as a crash would."""

    name = "runs"

    def __init__(self, journal: Journal, ports: Ports, limits: Limits, clock: Clock, tracer: Tracer = OFF) -> None:
        self.sight = RunSight(tracer)
        self.ready = asyncio.Event()
        self._journal = journal
        self._ports = ports
        self._limits = limits
        self._clock = clock
        self._broadcast = Broadcast()
        self._driver = RunDriver(journal, Performer(ports), self._broadcast, clock, self.sight)
        self._group: asyncio.TaskGroup | None = None
        self._active: dict[RunId, asyncio.Task[None]] = {}
        self._starting = 0
        self._finished = 0

    async def run(self) -> None:
        """Own the runs until cancelled. See faos_core.lifecycle.Service."""
        self._finished = await self._journal.count_finished()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.ready.set()
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._broadcast.close_all(UnavailableError(SERVICE_STOPPED))

    async def start(self, agent: str, text: str, *, idempotency_key: str = "", subject: str = "") -> RunId:
        """See RunService.start. Cancelling the caller does not stop what was begun."""
        configuration = self._ports.configuration.running()
        plan = self._plan(configuration, agent, text)
        new = NewRun(agent, configuration.revision, text, idempotency_key, subject)
        return await self._owned(self._start(new, plan))

    async def _start(self, new: NewRun, plan: Plan) -> RunId:
        """A repeated start finds its run even where there is no place for another."""
        if new.idempotency_key and (existing := await self._journal.find_run(new.agent, new.idempotency_key)):
            await self._take_up(existing)
            return existing
        self._admit()
        self._starting += 1
        try:
            open_run, begun = await self._journal.create_run(new, then=decide(plan, [], elapsed_s=0.0))
            if isinstance(begun, RecordedStep):
                past = (
                    partial(events.run_started, open_run.run),
                    partial(events.step_started, open_run.run.run_id, begun),
                )
                self._spawn(open_run, self._driver.drive(open_run, plan, new.revision, [], begun), past)
        finally:
            self._starting -= 1
        return open_run.run.run_id

    async def _take_up(self, run_id: RunId) -> None:
        """A run that was recorded while the answer of the database was lost has nobody who drives it."""
        if run_id in self._active or self._starting:
            return
        for open_run in await self._journal.unfinished_runs():
            if open_run.run.run_id == run_id and run_id not in self._active:
                self._spawn(open_run, self._resume(open_run))

    async def watch(self, run_id: RunId, *, after_sequence: int = 0) -> AsyncIterator[site.RunEvent]:
        """See RunService.watch. Text deltas of a step come after its StepStarted in the same stream, from the step's
        first word on; who resumes after that event gets the text whole, in StepFinished. A slow watcher loses
        deltas, never steps. Raises UnavailableError when the node stops."""
        watcher, sequence, text = self._broadcast.subscribe(run_id)
        try:
            past, seen = self._broadcast.past(run_id), after_sequence
            if past is None:
                past = events.replay(*await self._journal.read_run(run_id))
            for event in past:
                if event.sequence > seen:
                    yield event
                    seen = event.sequence
            if past[-1].HasField("finished"):
                return
            if text and seen == events.started_number(sequence) > after_sequence:
                yield events.text_delta(run_id, sequence, text, self._clock.now())
            while True:
                event = await watcher.next()
                number, kind = event.sequence, event.WhichOneof("event")
                if number > seen or (kind == "text_delta" and number == seen > after_sequence):
                    yield event
                    seen = number
                if kind == "finished":
                    return
        finally:
            self._broadcast.unsubscribe(run_id, watcher)

    async def cancel(self, run_id: RunId) -> site.Run:
        """See RunService.cancel. Cancelling the caller does not call it off."""
        return await self._owned(self._cancel(run_id))

    async def _cancel(self, run_id: RunId) -> site.Run:
        cancelled = await self._journal.cancel_run(run_id)
        if cancelled.is_new:
            self._finished += 1
            log.info("run.cancelled", extra={names.RUN_ID: run_id})
        self._driver.publish_cancelled(cancelled)
        if cancelled.step and (task := self._active.get(run_id)):
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_WAIT_S)
        return events.run_message(cancelled.run)

    async def get(self, run_id: RunId) -> tuple[site.Run, list[site.Step]]:
        """See RunService.get."""
        run, steps = await self._journal.read_run(run_id)
        return events.run_message(run), [events.step_message(step) for step in steps]

    async def list(self, *, page_size: int, page_token: str) -> "tuple[list[site.Run], str]":
        """See RunService.list. page_size: 0 is 50; at most 1000."""
        size = min(page_size or DEFAULT_PAGE, LARGEST_PAGE)
        found, token = await self._journal.list_runs(page_size=size, page_token=page_token)
        return [events.run_message(run) for run in found], token

    async def resume_all(self) -> int:
        """See RunService.resume_all."""
        unfinished = [each for each in await self._journal.unfinished_runs() if each.run.run_id not in self._active]
        for open_run in unfinished:
            self._spawn(open_run, self._resume(open_run))
        return len(unfinished)

    async def ended_by_state(self) -> dict[RunState, int]:
        """Of the store's whole life."""
        return await self._journal.count_by_state()

    def counts(self) -> RunCounts:
        return RunCounts(len(self._active), self._finished)

    async def _resume(self, open_run: OpenRun) -> None:
        """Replay what is recorded; begin again what was begun; go on."""
        configuration = self._ports.configuration.running()
        run, steps = await self._journal.read_run(open_run.run.run_id)
        if run.finished_at is not None:  # it was, and the answer that said so was lost
            self._driver.publish_ended(run, step_count=len(steps))
            return
        *recorded, pending = steps  # a run in progress always has a step that is begun
        if open_run.run.agent not in configuration.agents:
            await self._end(open_run, Ending(RunState.FAILED, error_code=AGENT_GONE.code), step_count=len(steps))
            return
        plan = self._plan(configuration, open_run.run.agent, open_run.run.input)
        begun = await self._journal.begin_step(open_run, pending.sequence, pending.request)
        self._driver.publish_begun(open_run, begun)
        await self._driver.drive(open_run, plan, configuration.revision, recorded, begun)

    def _plan(self, configuration: Configuration, agent: str, text: str) -> Plan:
        spec = configuration.agents.get(agent)
        if spec is None:
            raise NotFoundError(AGENT_UNKNOWN, agent=agent[:80], revision=configuration.revision)
        tools = self._ports.tools.definitions(spec.tools)
        return make_plan(configuration, agent, text, tools=tools, ceiling=self._limits)

    def _admit(self) -> None:
        active = len(self._active) + self._starting
        if active >= self._limits.concurrent_runs:
            raise LimitError(TOO_MANY_RUNS, active=active, limit=self._limits.concurrent_runs)

    def _spawn(self, open_run: OpenRun, work: Coroutine[Any, Any, None], past: Sequence[Make] | None = None) -> None:
        run_id = open_run.run.run_id
        if self._group is None:
            work.close()
            raise UnavailableError(SERVICE_STOPPED)
        self._broadcast.open(run_id, past)
        task = self._group.create_task(self._supervise(open_run, work), name=run_id)
        self._active[run_id] = task
        task.add_done_callback(lambda _task: self._let_go(run_id, work))

    async def _supervise(self, open_run: OpenRun, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end; an error that no step took ends this run and no other."""
        try:
            with self.sight.run(open_run.run):
                await self._through_outages(open_run, work)
            self._finished += 1
        except FaosError as error:
            await self._fail(open_run, error, error.code.code)
        except Exception as error:  # noqa: BLE001  # the supervisor of runs
            await self._fail(open_run, error, RUN_DEFECT.code)

    def _let_go(self, run_id: RunId, work: Coroutine[Any, Any, None]) -> None:
        """Also of a run that was cancelled before its task had begun."""
        work.close()
        del self._active[run_id]
        self._driver.let_go(run_id)
        self._broadcast.close(run_id)

    async def _through_outages(self, open_run: OpenRun, work: Coroutine[Any, Any, None]) -> None:
        """A database that goes away, or a full disk, stops no run: it goes on from the journal, as after a crash."""
        while True:
            try:
                return await work
            except FaosError as error:
                if not passes(error):
                    raise
                log.warning("run.waits", extra={names.RUN_ID: open_run.run.run_id, names.CODE: error.code.code})
            await self._clock.sleep(DATABASE_RETRY_S)
            work = self._resume(open_run)

    async def _fail(self, open_run: OpenRun, error: Exception, code: str) -> None:
        """End the run as failed, unless it was cancelled while it did what failed for that. Where the end cannot be
        written it stays RUNNING, for the next start."""
        fields = {names.RUN_ID: open_run.run.run_id, names.CODE: code, names.ERROR: type(error).__name__}
        try:
            _, steps = await self._journal.read_run(open_run.run.run_id)
            ended = await self._end(open_run, Ending(RunState.FAILED, error_code=code), step_count=len(steps))
        except FaosError as unwritten:
            log.error("run.failed", extra=fields, exc_info=error)
            log.error("run.failure_not_recorded", extra=fields | {names.ERROR: str(unwritten.code.code)})
            self._broadcast.close(open_run.run.run_id, InternalError(RUN_DEFECT))
            return
        if ended.ending.state is not RunState.CANCELLED:
            log.error("run.failed", extra=fields, exc_info=error)
            self._finished += 1

    async def _end(self, open_run: OpenRun, ending: Ending, *, step_count: int) -> RunRecord:
        """The run as it stands then: what ended before stays as it was."""
        ended = await self._journal.end_run(open_run, ending)
        self._driver.publish_ended(ended, step_count=step_count)
        return ended

    async def _owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Await it in a task of the group, so that a caller that goes away does not cut it off."""
        if self._group is None:
            work.close()
            raise UnavailableError(SERVICE_STOPPED)
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._group.create_task(_settle(outcome, work))
        return await outcome


async def _settle(outcome: asyncio.Future[T], work: Coroutine[Any, Any, T]) -> None:
    """The result or the error into the future, unless nobody waits for it any more: an error of one start must not end
    the group."""
    try:
        result = await work
    except asyncio.CancelledError:
        if not outcome.cancelled():
            outcome.set_exception(UnavailableError(SERVICE_STOPPED))
        raise
    except Exception as error:  # noqa: BLE001  # the supervisor of a start: raised where it was asked for
        if not outcome.cancelled():
            outcome.set_exception(error)
    else:
        if not outcome.cancelled():
            outcome.set_result(result)
