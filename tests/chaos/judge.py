"""What must hold after every fault, and at the end. Each method yields what does not, as sentences."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from tuf.api.metadata import Metadata

from control_plane.audit.service import verify as verify_audit
from control_plane.db.models import audit_records
from data_plane.agents.errors import SECONDS_EXHAUSTED
from data_plane.egress.ledger_verifier import Report, verify
from data_plane.egress.service import ledger_folder
from data_plane.link.config_store import StoredState, decode_state
from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_core.errors import FaosError, NotFoundError
from tests.chaos.fleet import TENANT, ChaosNode, Fleet, local_client
from tests.chaos.load import AcknowledgedRun, Load

LOOK_AGAIN_S = 0.1
LIST_AGAIN_S = 1.0
Head = tuple[int, str]


@dataclass(slots=True)
class Judge:
    """`bound_s`: within so many seconds after a fault everything runs the newest revision."""

    fleet: Fleet
    load: Load
    bound_s: float
    heads: dict[int, Head] = field(default_factory=dict)  # of each node's ledger, as last verified

    async def converged(self) -> list[str]:
        """Empty once every node runs the newest revision, healthy, and the control plane shows so; else why not."""
        give_up_s = time.monotonic() + self.bound_s
        while reasons := [reason async for reason in self._unsettled()]:
            for process in self.fleet.processes():
                process.check_alive()
            if time.monotonic() > give_up_s:
                return [f"not converged within {self.bound_s:.0f} s: {reason}" for reason in reasons]
            await asyncio.sleep(LOOK_AGAIN_S)
        return []

    async def _unsettled(self) -> AsyncIterator[str]:
        newest = self.load.newest
        for node in self.fleet.nodes:
            try:
                seen = await self.fleet.node(node)
            except FaosError as error:
                yield f"the control plane does not answer: {error.code.code}"
                return
            config = seen.config
            shown = (seen.desired_revision, config.attempted_revision, config.running_revision, config.healthy_revision)
            is_live = seen.liveness == admin.LIVENESS_LIVE
            if set(shown) != {newest} or config.state != tunnel.APPLY_STATE_HEALTHY or not is_live:
                state = tunnel.ApplyState.Name(config.state)
                code = tunnel.NackCode.Name(config.nack.code) if config.HasField("nack") else ""
                yield f"node {node.place} of {newest}: {shown} {state} {code} live={is_live}"

    async def standing(self) -> AsyncIterator[str]:
        """After each fault, once converged."""
        for node in self.fleet.nodes:
            node.process.check_alive()
            try:
                seen = await self.fleet.node(node)
            except FaosError as error:
                yield f"the control plane does not answer any more: {error.code.code}"
                return
            if seen.alarm or seen.standing != admin.NODE_STANDING_ADMITTED:
                yield f"node {node.place}: alarm {seen.alarm!r}, standing {seen.standing}"
            async for wrong in self._status(node):
                yield wrong
            for wrong in await asyncio.to_thread(lambda node=node, seen=seen: list(self._ledger(node, seen))):
                yield wrong
            async for wrong in self._configuration(node):
                yield wrong

    async def _status(self, node: ChaosNode) -> AsyncIterator[str]:
        """The site's own view comes to agree, and no alarm is left of a fault that is over."""
        give_up_s = time.monotonic() + self.bound_s
        while wrong := await self._wrong_status(node):
            if time.monotonic() > give_up_s:
                yield f"node {node.place}, {self.bound_s:.0f} s later: {wrong}"
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _wrong_status(self, node: ChaosNode) -> str:
        try:
            async with local_client(node) as client:
                status = await client.get_status()
        except FaosError as error:
            return f"its local API does not answer: {error.code.code}"
        is_well = status.connected and status.running_revision == self.load.newest and not status.alarms
        return "" if is_well else f"it says of itself: {status}"

    def _ledger(self, node: ChaosNode, seen: Any) -> Iterator[str]:
        """It holds, begins with what it was, and with what the control plane witnessed."""
        folder = ledger_folder(node.data_dir)
        before = self.heads.get(node.place, (0, ""))
        witness = (seen.ledger_size, seen.ledger_root_sha256.hex()) if seen.ledger_size else None
        report: Report = verify(folder, witness=witness)
        if not report.ok:
            yield f"node {node.place}: its ledger does not hold against the control plane's head: {report.problem}"
        if before[0] and not (again := verify(folder, witness=before)).ok:
            yield f"node {node.place}: its ledger is not what it was, grown: {again.problem}"
        self.heads[node.place] = (report.size, report.root_sha256)

    async def _configuration(self, node: ChaosNode) -> AsyncIterator[str]:
        """What it runs is the manifest that was acknowledged under that number, and its publisher signed it."""
        config = node.data_dir / "config"
        state = decode_state((config / "state.json").read_bytes())
        request = admin.GetRevisionRequest(tenant=TENANT, number=state.healthy.revision)
        answer = await self.fleet.client.call(self.fleet.client.resources.GetRevision, request)
        if answer.revision.manifest_sha256 != state.healthy.manifest_sha256 or state.running != state.healthy:
            yield f"node {node.place}: revision {state.healthy.revision} is not the one that was published"
        if state.high_water != state.healthy:
            yield f"node {node.place}: its high-water mark is {state.high_water.revision}, of {state.healthy.revision}"
        if problem := await asyncio.to_thread(unsigned, node, state):
            yield f"node {node.place}: {problem}"

    async def end(self) -> AsyncIterator[str]:
        """Once, when nothing strikes any more and the load has stopped."""
        for violation in self.load.violations:
            yield violation
        numbers = {revision.number for revision in await self._all("resources", "ListRevisions")}
        if lost := sorted(set(self.load.revisions) - numbers):
            yield f"acknowledged revisions are gone: {lost}"
        async for wrong in self._audit():
            yield wrong
        for node in self.fleet.nodes:
            async for wrong in self._runs(node):
                yield wrong
            async for wrong in self._events(node):
                yield wrong

    async def _all(self, service: str, rpc: str, **asked: str) -> list[Any]:
        client = self.fleet.client
        request = getattr(admin, f"{rpc}Request")(tenant=TENANT, **asked)
        return await client.list_all(getattr(getattr(client, service), rpc), request)

    async def _audit(self) -> AsyncIterator[str]:
        try:
            targets = await asyncio.to_thread(self._audited)
        except FaosError as error:
            yield f"the audit log does not hold: {error}"
            return
        for number in self.load.revisions:
            if f"revision {number}" not in targets:
                yield f"revision {number} was acknowledged and is not in the audit log"

    def _audited(self) -> set[str]:
        """Targets of the log's records, all of which hold. Raises IntegrityError."""
        engine = sa.create_engine(self.fleet.database_url)
        try:
            with closing(engine.connect()) as connection:
                verify_audit(connection)
                return set(connection.execute(sa.select(audit_records.c.target)).scalars())
        finally:
            engine.dispose()

    async def _runs(self, node: ChaosNode) -> AsyncIterator[str]:
        turns = self.load.turns(node)
        runs = [run for run in self.load.runs if run.node == node.place]
        async with local_client(node) as client:
            for run in runs:
                try:
                    answer = await client.get_run(run.run_id)
                except FaosError as error:
                    yield f"{run.question}: acknowledged as {run.run_id}, and now: {error.code.code}"
                    if isinstance(error, NotFoundError):
                        continue
                    return  # and so for every other
                is_late = any(run.asked_s <= redated_s <= run.told_s for redated_s in node.redated_s)
                for wrong in wrong_of(run, answer, turns.get(run.question, []), is_late=is_late):
                    yield f"{run.question}: {wrong}"

    async def _events(self, node: ChaosNode) -> AsyncIterator[str]:
        """The end of every run arrives at the control plane, and once; a moment later, because nobody waits for it."""
        give_up_s = time.monotonic() + self.bound_s
        expected = {run.run_id for run in self.load.runs if run.node == node.place}
        while True:
            listed = await self._all("nodes", "ListEvents", node=node.name)
            arrived = Counter(each.event.run_ended.run_id for each in listed if each.event.HasField("run_ended"))
            if not (lost := expected - arrived.keys()) or time.monotonic() > give_up_s:
                break
            await asyncio.sleep(LIST_AGAIN_S)
        if lost:
            yield f"node {node.place}: the ends of {len(lost)} runs did not arrive as events: {sorted(lost)[:5]}"
        if twice := [run_id for run_id, count in arrived.items() if count > 1]:
            yield f"node {node.place}: the ends of {len(twice)} runs arrived more than once: {twice[:5]}"
        if lost_count := (await self.fleet.node(node)).lost_event_count:
            yield f"node {node.place}: {lost_count} events are said to be lost"


def wrong_of(
    run: AcknowledgedRun, answer: site.GetRunResponse, turns: list[dict[str, Any]], *, is_late: bool
) -> Iterator[str]:
    """It ended well, as it was told; no recorded step was done again.

    is_late: its node was started under another date meanwhile. Only the wall clock tells a new process how long ago a
    run began, so this one may end for want of time, and for nothing else.
    """
    is_out_of_time = is_late and answer.run.error_code == SECONDS_EXHAUSTED.code
    if answer.run.state != site.RUN_STATE_SUCCEEDED and not is_out_of_time:
        yield f"ended as {site.RunState.Name(answer.run.state)} {answer.run.error_code}"
    if (run.state, run.output) != (answer.run.state, answer.run.output):
        yield "its end was told otherwise than it is recorded"
    recorded = {step.idempotency_key: step for step in answer.steps}
    for key, (step, heard_s) in run.steps.items():
        if recorded.get(key) != step:
            yield f"step {step.sequence} was recorded anew"
        if step.kind == site.STEP_KIND_MODEL and any(turn["at_s"] > heard_s for turn in turns):
            yield f"the model was asked again after step {step.sequence} was recorded"
    if turns and answer.run.output and turns[-1]["answer"] not in answer.run.output:
        yield "its answer is not the last that its model gave"


def unsigned(node: ChaosNode, state: StoredState) -> str:
    """Why the metadata in force does not vouch for what runs; empty when it does."""
    folder = node.data_dir / "config" / "metadata" / str(state.generation)
    root = Metadata.from_bytes((folder / "root.json").read_bytes())
    targets = Metadata.from_bytes((folder / "targets.json").read_bytes())
    root.verify_delegate("targets", targets)
    signed = targets.signed.targets["manifest"].hashes["sha256"]
    return "" if signed == state.healthy.manifest_sha256.hex() else f"{signed} is signed, and something else runs"
