"""How long a run has been under way, over restarts."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from data_plane.ceiling.models import Limits
from data_plane.storage.service import Storage
from data_plane.tools.interfaces import ToolResult
from faos.resource.v1 import resource_pb2 as resource
from tests.fakes.agents import definition
from tests.fakes.runs import Node, finished, make_node

GAUGE = '{"sensor": "boiler"}'
LIMITS = Limits(max_seconds=300)
BEFORE_S = 200.0


def with_tool(node: Node, *, lasts_s: float, reached: asyncio.Event | None = None) -> None:
    """reached: set when it is called; it hangs then."""

    async def read(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        if reached:
            reached.set()
            await asyncio.Event().wait()
        node.clock.advance(lasts_s)
        return ToolResult("41872")

    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), read)


class SlowModel:
    """Takes its time, on the node's clock."""

    def __init__(self, node: Node, *, lasts_s: float) -> None:
        self._inner, self._node, self._lasts_s = node.model, node, lasts_s

    async def chat(self, *arguments: Any, **options: Any) -> Any:
        self._node.clock.advance(self._lasts_s)
        async for item in self._inner.chat(*arguments, **options):
            yield item


@pytest.mark.parametrize("set_by_s", [86_400.0, 0.0, -86_400.0])
@pytest.mark.parametrize(("lasts_s", "error_code"), [(99.0, ""), (101.0, "run.seconds")])
async def test_seconds_of_a_run_go_on_over_a_restart_whatever_the_date(
    storage: Storage, set_by_s: float, lasts_s: float, error_code: str
) -> None:
    """A node that comes up with a date a day off must neither end what it was at, nor give it all of its time anew."""
    agent: Any = {"tools": ["plant"], "tool_choice": resource.TOOL_CHOICE_REQUIRED, "limits": LIMITS}
    node = make_node(storage, [GAUGE], **agent)
    node.model = SlowModel(node, lasts_s=BEFORE_S)
    reached = asyncio.Event()
    with_tool(node, lasts_s=0.0, reached=reached)
    async with node.running() as runs:
        run_id = await runs.start("helper", "What does the gauge show?")
        await reached.wait()

    later = make_node(storage, ["It reads 41872."], **agent)
    with_tool(later, lasts_s=lasts_s)
    later.clock.set_wall(set_by_s)
    async with later.running() as runs:
        await runs.resume_all()
        await finished(runs, run_id)
        run, steps = await runs.get(run_id)

    assert run.error_code == error_code
    assert steps[1].attempts == 2
