"""A node's runs in a process of their own, to be killed: python -m tests.system.resume_child FOLDER [PAUSE_POINT].

Starts one run, or takes up the one that is there. Every execution of a step appends a line to FOLDER/executions, on
disk before anything follows. At the pause point it says "paused" and waits to be killed; at the end "finished".
At the pause point "cancelled" it is half way through its answer, and the run has been cancelled.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_plane.agents.journal import Journal
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.ceiling.models import Limits
from data_plane.memory.interfaces import Passage
from data_plane.models.interfaces import FinishReason, TextDelta, TurnEnd
from data_plane.storage.service import open_storage
from data_plane.tools.interfaces import ToolResult
from faos_core.clock import SystemClock
from faos_core.ids import TenantName
from faos_core.lifecycle import running
from tests.fakes.agents import (
    Active,
    InProcessTools,
    OneModel,
    StringDocuments,
    WordEmbedder,
    configuration,
    definition,
)

QUESTION = "What does the gauge show now?"
TENANT = TenantName("acme")
FINISHED, PAUSED, CANCELLED = "finished", "paused", "cancelled"


class Trace:
    """The file of executions, and the pause point."""

    def __init__(self, folder: Path, pause_point: str) -> None:
        self._file = folder / "executions"
        self._pause_point = pause_point
        self.half_said = asyncio.Event()

    def executed(self, step: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{step}\n")
            file.flush()
            os.fsync(file.fileno())

    async def point(self, name: str) -> None:
        if name == "answer half said" and self._pause_point == CANCELLED:
            self.half_said.set()
            await asyncio.Event().wait()
        if name == self._pause_point:
            say(PAUSED)
            await asyncio.Event().wait()


class TracedDocuments(StringDocuments):
    def __init__(self, trace: Trace) -> None:
        super().__init__({"manual": ["Wear gloves."]})
        self._trace = trace

    async def search(self, names: Sequence[str], query: str, *, top_k: int) -> list[Passage]:
        self._trace.executed("retrieval")
        await self._trace.point("retrieval")
        return await super().search(names, query, top_k=top_k)


class TracedEmbedder(WordEmbedder):
    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    async def embed(self, texts: Sequence[str]) -> Any:
        self._trace.executed("routing")
        await self._trace.point("routing")
        return await super().embed(texts)


class TracedModel:
    """Fills in the arguments, and answers with the last word of the context."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    async def chat(self, messages: Sequence[Any], *, sampling: Any, json_schema: Any = None) -> Any:
        purpose = "answer" if json_schema is None else "arguments"
        self._trace.executed(purpose)
        await self._trace.point(f"{purpose} begins")
        text = json.dumps({"sensor": "boiler"}) if json_schema else "It reads 41872."
        yield TextDelta(text[:4])
        await self._trace.point(f"{purpose} half said")
        yield TextDelta(text[4:])
        yield TurnEnd(text, 1, 2, FinishReason.STOP)

    async def aclose(self) -> None: ...


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def tools_of(trace: Trace) -> InProcessTools:
    async def read_gauge(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        await trace.point("tool begins")
        trace.executed(f"tool {idempotency_key}")
        await trace.point("tool done")
        return ToolResult("boiler reads 41872")

    tools = InProcessTools()
    tools.add(definition("read_gauge", "Reads what a gauge shows now."), read_gauge)
    return tools


async def main(folder: Path, pause_point: str) -> None:
    trace = Trace(folder, pause_point)
    active = Active(configuration(knowledge=["manual"], tools=["plant"]))
    ports = Ports(active, OneModel(TracedModel(trace)), TracedEmbedder(trace), tools_of(trace), TracedDocuments(trace))
    url = os.environ.get("RESUME_DATABASE_URL")
    async with open_storage(folder / "node", tenant=TENANT, database_url=url) as storage:
        clock = SystemClock()
        runs = Runs(Journal(storage.store, storage.sealer, clock), ports, Limits(), clock)
        async with running([runs]):
            await runs.resume_all()
            run_id = await runs.start("helper", QUESTION, idempotency_key="the one")
            if pause_point == CANCELLED:
                await trace.half_said.wait()
                await runs.cancel(run_id)
                await trace.point(CANCELLED)
            async for _ in runs.watch(run_id):
                pass
    say(FINISHED)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
