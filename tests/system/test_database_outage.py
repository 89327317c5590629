"""The database of each plane goes away under load and comes back: nothing is lost, nobody starts anything again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from data_plane.agents.journal import Journal
from data_plane.agents.perform import Ports
from data_plane.agents.service import Runs
from data_plane.agents.steps import RunState
from data_plane.ceiling.models import Limits
from data_plane.models.interfaces import Message
from data_plane.storage.service import Storage, open_storage
from data_plane.tools.interfaces import ToolResult
from faos.admin.v1 import admin_pb2 as admin
from faos.site.v1 import site_pb2 as site
from faos_core.clock import SystemClock
from faos_core.errors import UnavailableError
from faos_core.ids import RunId, TenantName
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
from tests.fakes.model import ScriptedModel
from tests.patience import PATIENCE_S
from tests.servers.postgres import PostgresServer
from tests.system.harness import TENANT, running_control_plane
from tests.system.samples import MODEL
from tunnel.error_mapping import from_rpc_error

pytestmark = pytest.mark.needs("postgres")

RUNS = 12


async def refused_with(call: Any) -> str | None:
    """The registry's code of a refused call; None when it was answered."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code.code
    return None


async def test_a_control_plane_answers_while_its_database_is_gone_and_goes_on_when_it_is_back(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """An operator must read what is wrong, and have nothing to repair afterwards."""
    with own_postgres.database() as name:
        async with running_control_plane(tmp_path, database_url=own_postgres.url(name)) as plane:
            await plane.create_tenant()
            await plane.apply(MODEL)
            stop, made, codes = asyncio.Event(), set[str](), Counter[str]()

            async def make_sites(worker: int) -> None:
                for number in range(100_000):
                    if stop.is_set():
                        return
                    site = f"s-{worker}-{number}"
                    request = admin.CreateSiteRequest(tenant=TENANT, name=site)
                    code = await refused_with(plane.tenants.CreateSite(request, metadata=plane.metadata))
                    made.add(site) if code is None else codes.update([code])
                    await asyncio.sleep(0.02 if code else 0)

            async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_S):
                for worker in range(4):
                    group.create_task(make_sites(worker))
                await until(lambda: len(made) > 10)
                await asyncio.to_thread(own_postgres.stop)
                await until(lambda: codes["store.unavailable"] > 10)
                await asyncio.to_thread(own_postgres.start)
                before = len(made)
                await until(lambda: len(made) > before + 10)
                stop.set()

            listed = await plane.tenants.ListSites(
                admin.ListSitesRequest(tenant=TENANT, page_size=1000), metadata=plane.metadata
            )
            assert made <= {site.name for site in listed.sites}
            assert set(codes) <= {"store.unavailable", "store.unconfirmed"}
            assert (await plane.apply()).revision == 1


class Gate:
    """Holds what comes by until it is opened; counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = asyncio.Event()

    async def __call__(self) -> None:
        self.waiting += 1
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


@asynccontextmanager
async def node_runs(storage: Storage, gate: Gate, calls: Counter[str]) -> AsyncIterator[Runs]:
    """Runs that call a tool once and then answer; each call waits at the gate, when its effect is done."""

    async def read_gauge(arguments: Mapping[str, Any], idempotency_key: str) -> ToolResult:
        calls[idempotency_key] += 1
        await gate()
        return ToolResult("boiler reads 41872")

    tools, clock = InProcessTools(), SystemClock()
    tools.add(definition("read_gauge", "Reads what a gauge shows now."), read_gauge)
    model = ScriptedModel([say] * 4 * RUNS)
    active = Active(configuration(tools=["plant"]))
    ports = Ports(active, OneModel(model), WordEmbedder(), tools, StringDocuments())
    runs = Runs(Journal(storage.store, storage.sealer, clock), ports, Limits(), clock)
    async with running([runs]):
        yield runs


def say(messages: Sequence[Message], json_schema: Mapping[str, Any] | None) -> str:
    return "It reads 41872." if json_schema is None else '{"sensor": "boiler"}'


def node_storage(folder: Path, url: str) -> AbstractAsyncContextManager[Storage]:
    return open_storage(folder, tenant=TenantName("acme"), database_url=url)


async def test_runs_in_progress_outlive_an_outage_of_the_nodes_database(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """What a tool did while the journal was away is kept and recorded later, not done again."""
    gate, calls = Gate(), Counter[str]()
    with own_postgres.database() as name:
        async with node_storage(tmp_path, own_postgres.url(name)) as storage, node_runs(storage, gate, calls) as runs:
            ids = [await runs.start("helper", "What does the gauge show now?") for _ in range(RUNS)]
            watching = [asyncio.create_task(ended(runs, run_id)) for run_id in ids]
            await until(lambda: gate.waiting == RUNS)

            await asyncio.to_thread(own_postgres.stop)
            gate.open()
            with pytest.raises(UnavailableError, match=r"store\.unavailable"):
                await runs.start("helper", "And now?")
            await asyncio.to_thread(own_postgres.start)

            async with asyncio.timeout(PATIENCE_S):
                states = await asyncio.gather(*watching)

    assert set(states) == {site.RUN_STATE_SUCCEEDED}
    assert set(calls.values()) == {1}
    assert len(calls) == RUNS


async def ended(runs: Runs, run_id: RunId) -> Any:
    """The state that the run ends in, as a client hears it: one that finds the journal away asks again."""
    while True:
        try:
            events = [event async for event in runs.watch(run_id)]
            return events[-1].finished.state
        except UnavailableError:
            await asyncio.sleep(0.1)


async def test_a_run_whose_start_was_not_confirmed_is_driven_by_whoever_asks_again(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """It is recorded, and nobody drives it: the same idempotency key must lead to an answer, not to silence."""
    gate, calls = Gate(), Counter[str]()
    gate.open()
    with own_postgres.database() as name:
        async with node_storage(tmp_path, own_postgres.url(name)) as storage, node_runs(storage, gate, calls) as runs:
            run_id = await left_behind(storage, tmp_path)

            assert await runs.start("helper", "What does the gauge show now?", idempotency_key="the one") == run_id
            async with asyncio.timeout(PATIENCE_S):
                assert await ended(runs, run_id) == site.RUN_STATE_SUCCEEDED


async def left_behind(storage: Storage, folder: Path) -> RunId:
    """Recorded by a start that never heard so."""
    gate = Gate()
    async with node_runs(storage, gate, Counter()) as runs:
        run_id = await runs.start("helper", "What does the gauge show now?", idempotency_key="the one")
        await until(lambda: gate.waiting == 1)
    run, _ = await Journal(storage.store, storage.sealer, SystemClock()).read_run(run_id)
    assert run.ending.state is RunState.RUNNING
    return run_id


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)
