"""Runs of agents in this process over a real, sealed store: what tests of the loop share."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from data_plane.agents.journal import Journal
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.ceiling.models import Limits
from data_plane.storage.service import Storage
from data_plane.tools.interfaces import ToolResult
from faos.site.v1 import site_pb2 as site
from faos_core.ids import RunId
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
from tests.fakes.model import ScriptedModel, Turn


class ManualClock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)
        self._set_by = timedelta()

    def now(self) -> datetime:
        return self.moment + self._set_by

    def monotonic_s(self) -> float:
        return self.moment.timestamp()

    def set_wall(self, by_s: float) -> None:
        """As a person who corrects a machine's date."""
        self._set_by += timedelta(seconds=by_s)

    async def sleep(self, duration_s: float) -> None:
        self.advance(duration_s)

    def advance(self, duration_s: float) -> None:
        self.moment += timedelta(seconds=duration_s)


async def read_gauge(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
    return ToolResult(f"{arguments['sensor']} reads 41872")


@dataclass
class Node:
    """What runs need, with everything real but the model, the clock and the tools' bodies."""

    storage: Storage
    model: Any
    configuration: Active
    clock: ManualClock = field(default_factory=ManualClock)
    limits: Limits = field(default_factory=Limits)
    tools: InProcessTools = field(default_factory=InProcessTools)
    documents: StringDocuments = field(default_factory=StringDocuments)

    @property
    def journal(self) -> Journal:
        return Journal(self.storage.store, self.storage.sealer, self.clock)

    def runs(self) -> Runs:
        ports = Ports(self.configuration, OneModel(self.model), WordEmbedder(), self.tools, self.documents)
        return Runs(self.journal, ports, self.limits, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runs]:
        runs = self.runs()
        async with running([runs]):
            yield runs


def make_node(
    storage: Storage,
    turns: Sequence[Turn] = (),
    *,
    model: Any = None,
    limits: Limits | None = None,
    allow: bool = True,
    **agent: Any,
) -> Node:
    """A node with the agent "helper", the tool "read_gauge" and a manual that says 73519. agent: fields of its spec."""
    active = Active(configuration(allow=allow, **agent))
    node = Node(storage, model or ScriptedModel(turns), active, limits=limits or Limits())
    node.tools.add(definition("read_gauge", "Reads what a gauge shows now."), read_gauge)
    node.documents.documents["manual"] = ["The spare valve is stored in cabinet 73519.", "Wear gloves."]
    return node


async def finished(runs: Runs, run_id: RunId) -> list[site.RunEvent]:
    """Every event of a run until it ends."""
    return [event async for event in runs.watch(run_id)]


async def complete(
    node: Node, text: str = "What does the gauge show?", **start: Any
) -> tuple[site.Run, list[site.Step]]:
    """Run the helper to its end."""
    async with node.running() as runs:
        run_id = await runs.start("helper", text, **start)
        await finished(runs, run_id)
        return await runs.get(run_id)
