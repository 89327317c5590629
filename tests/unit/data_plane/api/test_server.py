import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from data_plane.api.interfaces import Facts, LinkState
from data_plane.api.server import SiteServer, channel, owned
from data_plane.api.service import SiteApi
from data_plane.egress.interfaces import LedgerHead
from data_plane.storage.service import Storage
from faos.site.v1 import site_pb2 as site
from faos.site.v1.site_pb2_grpc import SiteServiceStub
from faos_core.errors import ConflictError, FaosError, NotFoundError, SetupError
from faos_core.lifecycle import running
from faos_core.site_socket import socket_path
from tests.fakes.runs import Node, make_node
from tests.patience import PATIENCE_S
from tunnel.error_mapping import from_rpc_error


@dataclass
class Standing:
    """A link and a ledger that stand still."""

    def state(self) -> LinkState:
        return LinkState("spiffe://x/node/n", connected=True, attempted_revision=3, healthy_revision=2, alarms=("a.b",))

    def head(self) -> LedgerHead:
        return LedgerHead(17, b"")


@asynccontextmanager
async def serving(node: Node, folder: Path) -> AsyncIterator[SiteServiceStub]:
    runs = node.runs()
    server = SiteServer(folder, SiteApi(runs, Facts(Standing(), node.configuration, Standing())))
    async with running([runs, server]), channel(folder) as connection:
        yield SiteServiceStub(connection)


async def test_run_agent_streams_events_to_its_end(storage: Storage, tmp_path: Path) -> None:
    """The whole way of a question: over the socket, through the journal, back as events."""
    async with serving(make_node(storage, ["Hello there."]), tmp_path / "s") as site_api:
        events = [reply.event async for reply in site_api.RunAgent(site.RunAgentRequest(agent="helper", input="Hi"))]
        found = await site_api.GetRun(site.GetRunRequest(run_id=events[0].run_id))
        watched = [reply.event async for reply in site_api.WatchRun(site.WatchRunRequest(run_id=events[0].run_id))]
        listed = await site_api.ListRuns(site.ListRunsRequest())

    assert events[-1].finished.output == "Hello there."
    assert found.run.output == "Hello there."
    assert watched[-1] == events[-1]
    assert [run.run_id for run in listed.runs] == [events[0].run_id]


async def test_error_arrives_with_code_and_sentences(storage: Storage, tmp_path: Path) -> None:
    """A person at the command line must read what happened, why and what to type."""
    async with serving(make_node(storage), tmp_path / "s") as site_api:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in site_api.RunAgent(site.RunAgentRequest(agent="nobody", input="Hi")):
                pass
        error: FaosError = from_rpc_error(failed.value)

    assert isinstance(error, NotFoundError)
    assert (error.code.code, "nobody" in error.what) == ("run.agent_unknown", True)


async def test_status_shows_attempted_running_and_healthy_apart(storage: Storage, tmp_path: Path) -> None:
    """Three different facts; showing one for another hides a stuck rollout."""
    async with serving(make_node(storage), tmp_path / "s") as site_api:
        status = await site_api.GetStatus(site.GetStatusRequest())

    assert (status.attempted_revision, status.running_revision, status.healthy_revision) == (3, 1, 2)
    assert (list(status.agents), status.ledger_size, list(status.alarms)) == (["helper"], 17, ["a.b"])


async def test_socket_is_for_its_owner_alone(storage: Storage, tmp_path: Path) -> None:
    """Whoever can open the socket reads everything that agents say."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o755)

    async with serving(make_node(storage), folder):
        path = socket_path(folder)
        modes = stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(folder.stat().st_mode)

    assert modes == (0o600, 0o700)
    assert not path.exists()


async def test_socket_of_dead_process_is_replaced(storage: Storage, tmp_path: Path) -> None:
    """After kill -9 the file stays; the next start must not need a hand."""
    folder = tmp_path / "s"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(socket_path(folder)))

    async with serving(make_node(storage), folder) as site_api:
        status = await site_api.GetStatus(site.GetStatusRequest())

    assert status.running_revision == 1


async def test_second_node_in_same_folder_is_refused(storage: Storage, tmp_path: Path) -> None:
    """Two nodes over one journal would run every resumed step twice."""
    node, folder = make_node(storage), tmp_path / "s"

    async with serving(node, folder) as site_api:
        second = SiteServer(folder, SiteApi(node.runs(), Facts(Standing(), node.configuration, Standing())))
        with pytest.raises(ConflictError) as refused:
            await second.run()
        status = await site_api.GetStatus(site.GetStatusRequest())

    assert refused.value.code.code == "api.already_running"
    assert status.running_revision == 1


async def test_server_serves_folder_that_its_node_owns(storage: Storage, tmp_path: Path) -> None:
    """A node takes the folder before it opens any store; its own server must not be refused for that."""
    node, folder = make_node(storage), tmp_path / "s"
    facts = Facts(Standing(), node.configuration, Standing())

    with owned(folder):
        owner, stranger = (
            SiteServer(folder, SiteApi(node.runs(), facts), folder_is_owned=own) for own in (True, False)
        )
        async with running([owner]), channel(folder) as connection:
            status = await SiteServiceStub(connection).GetStatus(site.GetStatusRequest())
            with pytest.raises(ConflictError):
                await stranger.run()

    assert status.running_revision == 1


async def test_path_that_no_socket_can_have_is_refused(storage: Storage, tmp_path: Path) -> None:
    """Without this the system's own words are "AF_UNIX path too long", from deep inside gRPC."""
    node, folder = make_node(storage), tmp_path / ("x" * 120)
    server = SiteServer(folder, SiteApi(node.runs(), Facts(Standing(), node.configuration, Standing())))

    with pytest.raises(SetupError) as refused:
        await server.run()

    assert refused.value.code.code == "api.socket_path_too_long"


async def test_run_goes_on_when_its_client_goes_away(storage: Storage, tmp_path: Path) -> None:
    """Closing a terminal must not cost the work that was asked for."""
    async with serving(make_node(storage, ["Hello."]), tmp_path / "s") as site_api:
        call = site_api.RunAgent(site.RunAgentRequest(agent="helper", input="Hi"))
        first = await call.read()
        call.cancel()
        watching = site_api.WatchRun(site.WatchRunRequest(run_id=first.event.run_id))
        last = [reply.event async for reply in watching][-1]

    assert last.finished.output == "Hello."


async def test_stopping_node_sends_watchers_away_with_a_reason(storage: Storage, tmp_path: Path) -> None:
    """A client must be able to tell a restart from the end of its run, and stopping must not wait for clients."""
    node = make_node(storage, model=Silent())
    runs = node.runs()
    server = SiteServer(tmp_path / "s", SiteApi(runs, Facts(Standing(), node.configuration, Standing())))

    async with channel(tmp_path / "s") as connection:
        async with running([runs, server]):
            call = SiteServiceStub(connection).RunAgent(site.RunAgentRequest(agent="helper", input="Hi"))
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read_all(call)

    assert ended.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def read_all(call: Any) -> None:
    while await call.read():
        pass


class Silent:
    """A model that never says anything."""

    async def chat(self, *arguments: object, **options: object) -> AsyncIterator[object]:
        await asyncio.Event().wait()
        yield None


async def test_cancel_stops_a_run_and_watchers_see_its_end(storage: Storage, tmp_path: Path) -> None:
    """The whole way of a stop: over the socket, into the journal, to whoever watches; twice is as good as once."""
    async with asyncio.timeout(PATIENCE_S), serving(make_node(storage, model=Silent()), tmp_path / "s") as site_api:
        call = site_api.RunAgent(site.RunAgentRequest(agent="helper", input="Hi"))
        events = aiter(call)
        run_id = (await anext(events)).event.run_id
        first = await site_api.CancelRun(site.CancelRunRequest(run_id=run_id))
        again = await site_api.CancelRun(site.CancelRunRequest(run_id=run_id))
        last = [reply.event async for reply in events][-1]

    assert first.run.state == last.finished.state == site.RUN_STATE_CANCELLED
    assert again == first


async def test_cancel_of_an_unknown_run_is_said(storage: Storage, tmp_path: Path) -> None:
    """A misspelt id must not look like success."""
    async with serving(make_node(storage), tmp_path / "s") as site_api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await site_api.CancelRun(site.CancelRunRequest(run_id="run-none"))

    assert isinstance(from_rpc_error(refused.value), NotFoundError)
