"""Cancelling a run: at once, for good, and seen by whoever watches."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from data_plane.storage.service import Storage
from data_plane.tools.interfaces import ToolResult
from faos.resource.v1 import resource_pb2 as resource
from faos.site.v1 import site_pb2 as site
from tests.fakes.agents import definition
from tests.fakes.runs import finished, make_node
from tests.patience import PATIENCE_S

GAUGE = json.dumps({"sensor": "boiler"})
MODEL = resource.TOOL_CHOICE_MODEL
REQUIRED = resource.TOOL_CHOICE_REQUIRED


def kinds(steps: list[site.Step]) -> list[str]:
    return [site.StepKind.Name(step.kind).removeprefix("STEP_KIND_") for step in steps]


class Talking:
    """Goes on and on; knows whether it was stopped."""

    def __init__(self) -> None:
        self.said, self.stopped = asyncio.Event(), asyncio.Event()

    async def chat(self, *arguments: Any, **options: Any) -> Any:
        from data_plane.models.interfaces import TextDelta

        try:
            while True:
                yield TextDelta("and so ")
                self.said.set()
                await asyncio.sleep(0.001)
        finally:
            self.stopped.set()


async def test_cancel_stops_generation_and_tells_the_watcher(storage: Storage) -> None:
    """Who says stop must get the machine back at once, and whoever watches must see why it ended."""
    node = make_node(storage, model=Talking())

    async with asyncio.timeout(PATIENCE_S), node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        watching = asyncio.ensure_future(finished(runs, run_id))
        await node.model.said.wait()
        stands = await runs.cancel(run_id)
        stopped = node.model.stopped.is_set()
        watched = await watching
        replayed = await finished(runs, run_id)
        counts = runs.counts()

    assert stopped
    assert (stands.state, stands.error_code) == (site.RUN_STATE_CANCELLED, "run.cancelled")
    assert watched[-1].finished.state == site.RUN_STATE_CANCELLED
    durable = [event for event in watched if not event.HasField("text_delta")]
    assert durable == replayed
    assert [event.sequence for event in replayed] == [1, 2, 3, 4]
    assert (counts.active, counts.finished) == (0, 1)


async def test_cancel_abandons_the_tool_call_and_no_step_follows(storage: Storage) -> None:
    """A hung tool is why most people cancel."""
    node = make_node(storage, [GAUGE, "never said"], tools=["plant"], tool_choice=REQUIRED)
    reached, left = asyncio.Event(), asyncio.Event()

    async def hang(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), hang)
    async with asyncio.timeout(PATIENCE_S), node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await reached.wait()
        await runs.cancel(run_id)
        abandoned = left.is_set()
        run, steps = await runs.get(run_id)

    assert abandoned
    assert (kinds(steps), steps[-1].error_code) == (["MODEL", "TOOL"], "run.cancelled")
    assert steps[-1].HasField("finished_at")
    assert run.state == site.RUN_STATE_CANCELLED


async def test_cancel_of_a_finished_run_changes_nothing(storage: Storage) -> None:
    """The answer came before the word: it stays."""
    node = make_node(storage, ["It reads 41872."])
    async with node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await finished(runs, run_id)
        before, _ = await runs.get(run_id)
        stands = await runs.cancel(run_id)
        counted = runs.counts().finished

    assert stands == before
    assert (stands.state, counted) == (site.RUN_STATE_SUCCEEDED, 1)


async def test_cancelled_run_is_not_taken_up_after_a_restart(storage: Storage) -> None:
    """Also one that nobody drives yet: a node that waits for its first configuration can be told to stop."""
    left = make_node(storage, model=Talking())
    async with asyncio.timeout(PATIENCE_S), left.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await left.model.said.wait()

    later = make_node(storage, [])
    async with asyncio.timeout(PATIENCE_S), later.running() as runs:
        stands = await runs.cancel(run_id)
        taken_up = await runs.resume_all()
        again = await runs.cancel(run_id)

    assert taken_up == 0
    assert (stands.state, again) == (site.RUN_STATE_CANCELLED, stands)


async def test_cancel_while_it_is_being_taken_up_ends_it_once(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """Between listing what a crash cut off and going on with it a person may say stop: that is no defect."""
    left = make_node(storage, model=Talking())
    async with asyncio.timeout(PATIENCE_S), left.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await left.model.said.wait()

    later = make_node(storage, model=Talking())
    async with asyncio.timeout(PATIENCE_S), later.running() as runs:
        async with asyncio.TaskGroup() as group:
            group.create_task(runs.resume_all())
            cancelling = group.create_task(runs.cancel(run_id))
        run, _ = await runs.get(run_id)
        while runs.counts().active:
            await asyncio.sleep(0.001)

    assert run == cancelling.result()
    assert "run.failed" not in caplog.text


async def test_cancel_goes_on_when_its_caller_goes_away(storage: Storage) -> None:
    """A second Ctrl-C, or a client that hangs up, must not leave a run half stopped."""
    node = make_node(storage, model=Talking())
    async with asyncio.timeout(PATIENCE_S), node.running() as runs:
        run_id = await runs.start("helper", "Hi")
        await node.model.said.wait()
        asking = asyncio.ensure_future(runs.cancel(run_id))
        await asyncio.sleep(0)
        asking.cancel()
        events = await finished(runs, run_id)

    assert events[-1].finished.state == site.RUN_STATE_CANCELLED
