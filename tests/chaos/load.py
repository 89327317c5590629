"""What goes on while faults strike: questions to every node, and revisions for all of them."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1 import resource_pb2 as pb
from faos.site.v1 import site_pb2 as site
from faos_cli.site_client import SiteClient, is_interruption
from faos_core.errors import FaosError
from tests.chaos.fleet import TENANT, ChaosNode, Fleet, local_client
from tests.servers.stub_model import TAG
from tests.system.small_site import agent, allow_all, knowledge_base

AGAIN_S = 0.2
BETWEEN_RUNS_S = 0.3
ACKNOWLEDGED_WITHIN_S = 150.0
ENDED_WITHIN_S = 300.0


@dataclass(slots=True)
class AcknowledgedRun:
    """A run that a node said it has: from then on it must come to an end, whatever happens."""

    node: int
    question: str
    run_id: str
    asked_s: float = 0.0  # from before it was acknowledged …
    told_s: float = 0.0  # … until after its end was heard (monotonic)
    steps: dict[str, tuple[site.Step, float]] = field(default_factory=dict)  # by key: as recorded, and heard when
    state: int = 0
    error_code: str = ""
    output: str = ""


@dataclass(slots=True)
class Load:
    """Acknowledged revisions by number with what the tenant then declares, and acknowledged runs."""

    seed: int
    fleet: Fleet
    runs: list[AcknowledgedRun] = field(default_factory=list)
    revisions: dict[int, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    retries: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def newest(self) -> int:
        return max(self.revisions)

    async def begin(self) -> None:
        """The resources that stay."""
        stub = pb.Model(runtime=pb.MODEL_RUNTIME_OLLAMA, source="box", model_tag=TAG, context_tokens=2048)
        model = pb.Resource(metadata=pb.Metadata(name="smollm2"), model=stub)
        await self._apply("first", model, knowledge_base(), agent(knowledge=["handbook"]))

    async def publish(self, name: str) -> None:
        """One more revision. It is asked for until it is acknowledged."""
        await self._apply(name, allow_all(f"rules-{name[-1]}"), rule=name)

    async def _apply(self, name: str, *resources: pb.Resource, rule: str = "") -> None:
        for resource in resources if rule else ():
            resource.policy.rules[0].name = rule
        request = admin.ApplyResourcesRequest(tenant=TENANT, resources=resources, request_id=f"{self.seed}-{name}")
        give_up_s = time.monotonic() + ACKNOWLEDGED_WITHIN_S
        while True:
            try:
                answer = await self.fleet.client.call(self.fleet.client.resources.ApplyResources, request)
            except FaosError as error:
                self.retries += 1
                if time.monotonic() > give_up_s:
                    self.violations.append(f"apply {name} was not acknowledged: {error.code.code}")
                    return
                await asyncio.sleep(AGAIN_S)
            else:
                self.revisions[answer.revision] = name
                return

    async def ask_on(self, node: ChaosNode) -> None:
        """Questions to one node, one after the other, until the load stops."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            if run := await self._begun(node, f"question {self.seed}-{node.place}-{number}"):
                self.runs.append(run)
                await self._followed(node, run)
            await asyncio.sleep(BETWEEN_RUNS_S)

    async def _begun(self, node: ChaosNode, question: str) -> AcknowledgedRun | None:
        """Ask with one idempotency key until the node says that it has the run."""
        request = site.RunAgentRequest(agent="assistant", input=question, idempotency_key=question)
        asked_s = time.monotonic()
        while not self.stopping.is_set():
            try:
                async with local_client(node) as client:
                    async for started in client.stub.RunAgent(request, timeout=ENDED_WITHIN_S):
                        return AcknowledgedRun(node.place, question, started.event.run_id, asked_s)
            except (FaosError, grpc.aio.AioRpcError):
                self.retries += 1
            await asyncio.sleep(AGAIN_S)
        return None

    async def _followed(self, node: ChaosNode, run: AcknowledgedRun) -> None:
        """Hear it to its end, over every interruption."""
        give_up_s = time.monotonic() + ENDED_WITHIN_S
        after = 0
        while not run.state:
            try:
                async with local_client(node) as client:
                    after = await self._hear(client, run, after)
            except grpc.aio.AioRpcError as error:
                if not is_interruption(error):
                    self.violations.append(f"{run.question}: acknowledged as {run.run_id}, and now: {error.details()}")
                    return
            except FaosError:
                pass  # no node is there
            if time.monotonic() > give_up_s:
                self.violations.append(f"{run.question}: {run.run_id} did not end within {ENDED_WITHIN_S:.0f} s")
                return
            await asyncio.sleep(AGAIN_S)

    async def _hear(self, client: SiteClient, run: AcknowledgedRun, after: int) -> int:
        """From an event on; the last event that was heard."""
        request = site.WatchRunRequest(run_id=run.run_id, after_sequence=after)
        try:
            async for watched in client.stub.WatchRun(request, timeout=ENDED_WITHIN_S):
                event = watched.event
                if event.HasField("step_finished"):
                    step = event.step_finished.step
                    run.steps[step.idempotency_key] = (step, time.monotonic())
                    after = event.sequence
                if event.HasField("finished"):
                    run.state, run.output = event.finished.state, event.finished.output
                    run.error_code, run.told_s = event.finished.error_code, time.monotonic()
        except grpc.aio.AioRpcError as error:
            if not is_interruption(error):
                raise
        return after

    def turns(self, node: ChaosNode) -> dict[str, list[dict[str, Any]]]:
        """What the node's model answered, by question."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in node.turns.read_text().splitlines():
            turn = json.loads(line)
            found.setdefault(turn["question"], []).append(turn)
        return found
